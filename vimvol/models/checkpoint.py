"""Weights files: our own (safetensors with a description inside), and torch-em's.

No file can run code: safetensors hold arrays and text, and PyTorch files are read with ``weights_only=True``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from vimvol.address import is_file
from vimvol.errors import CheckpointError, InputError, StorageError
from vimvol.models.layouts import encoder_alone, infer_spec, state_dict_in
from vimvol.models.meta import without_values
from vimvol.models.registry import MODELS, build_model
from vimvol.models.spec import ModelSpec

__all__ = ["LoadedModel", "ModelSpec", "load_checkpoint", "read_spec", "read_weights", "save_checkpoint", "shipped"]

METADATA_KEY = "vimvol"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights.

    Attributes
    ----------
    model
        In evaluation mode, on the CPU, float32.
    spec
        What it is.
    sha256
        Of the file, in hexadecimal.
    """

    model: nn.Module
    spec: ModelSpec
    sha256: str


def shipped() -> dict[str, Path]:
    """Return the weights that come with the package: file by name."""
    folder = Path(str(resources.files("vimvol.models"))) / "weights"
    return {p.stem: p for p in sorted(folder.glob("*" + SUFFIX))} if folder.is_dir() else {}


def save_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, spec: ModelSpec, dtype: torch.dtype | None = None
) -> None:
    """Write weights and description to one safetensors file; it is there whole or not at all.

    Parameters
    ----------
    path
        File to write; replaced where it exists.
    model
        Network that ``spec`` describes.
    spec
        Its description. The options of its registry entry are written too, so that the file outlives their change.
    dtype
        Of stored floating-point values, such as ``torch.float16``; none: as they are.

    Raises
    ------
    CheckpointError
        If the description gives another network than ``model``, or a value is not finite in this dtype.
    StorageError
        If the file cannot be written.
    """
    target = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    _check_fit(_skeleton(spec).state_dict(), state, "the model to save")
    if dtype is not None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    _check_finite(state, "the model to save")
    full = dataclasses.replace(spec, options={**MODELS[spec.architecture].options, **spec.options})
    data = to_safetensors(state, metadata={METADATA_KEY: full.to_json()})
    try:
        _write_whole(target, data)
    except OSError as error:
        raise StorageError(f"weights {target} could not be written ({error}); check the folder and its space") from None


def load_checkpoint(name_or_path: str | os.PathLike[str], architecture: str | None = None) -> LoadedModel:
    """Return a network with the weights of a file.

    Parameters
    ----------
    name_or_path
        Name of shipped weights (`shipped`), or a file: safetensors as `save_checkpoint` writes them, or a checkpoint or
        state_dict of torch-em (ViM-UNet, UNETR, UNet2d), whose network is told from its names and shapes.
    architecture
        Registry name that it must belong to; none: any.

    Raises
    ------
    InputError
        If there are no such weights.
    CheckpointError
        If the file is no checkpoint, damaged, of another architecture, or could run code.
    """
    path = find_weights(name_or_path)
    where = f"checkpoint {path}"
    spec, state = _read(path, where)
    if architecture is not None and spec.architecture != architecture:
        raise CheckpointError(f"{where} holds {spec.architecture}, not {architecture}; ask for {spec.architecture}")
    model = _with_weights(spec, state, where)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedModel(model, spec, sha256)


def read_spec(name_or_path: str | os.PathLike[str]) -> ModelSpec:
    """Return what a file says about itself, without its weights; arguments and errors as `load_checkpoint`."""
    path = find_weights(name_or_path)
    return _read(path, f"checkpoint {path}", weights=False)[0]


def read_weights(name_or_path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the weights of a file, float32 on the CPU, of a network or of its encoder alone, to start a training from.

    An encoder alone is what Segment Anything's checkpoints give. Arguments and errors as `load_checkpoint`; whether
    they fit a network is not checked.
    """
    path = find_weights(name_or_path)
    where = f"checkpoint {path}"
    state = _read(path, where)[1]
    _check_finite(state, where)
    return _single(state)


def _read(path: Path, where: str, weights: bool = True) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Return description and entries of a file; no entries where only the description is asked and there is one."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read ({error.strerror}); check its permissions") from None
    if head[8:9] == b"{":
        return _read_safetensors(path, where, weights)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return infer_spec(_read_torch(path, where), where)
    raise CheckpointError(f"{where} is neither safetensors nor a PyTorch file; give a file of weights")


def find_weights(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of weights, without a look at what it holds; arguments as `load_checkpoint`.

    Raises
    ------
    InputError
        If there is none.
    """
    name, files = os.fspath(name_or_path), shipped()
    path = files.get(name, Path(name))
    if is_file(path):
        return path
    if path.is_dir():
        raise InputError(f"{name} is a folder and holds no weights by itself; give a file in it")
    if name in MODELS:
        has = f"weights come with {', '.join(files)}; " if files else ""
        raise InputError(f"no weights of {name} come with the package; {has}train it or give the path of a checkpoint")
    names = list(dict.fromkeys((*files, *MODELS)))
    alike = [other for other in names if other.startswith(name)]
    close = list(dict.fromkeys((*alike, *difflib.get_close_matches(name, names))))[:3]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    has = f", weights come with {' and '.join(files)}" if files else ""
    raise InputError(
        f"no network and no file is called {name!r}; {hint}`vimvol models` lists all {len(names)} networks{has}; or "
        "give the path of a file"
    )


def _read_safetensors(path: Path, where: str, weights: bool) -> tuple[ModelSpec, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            wanted = file.keys() if weights or text is None else ()
            state = {key: file.get_tensor(key) for key in wanted}
    except SafetensorError as error:
        reason = _first_lost(path) or _line(error)
        raise CheckpointError(f"{where} is damaged or cut short ({reason}); copy it again") from None
    return infer_spec(state, where) if text is None else (ModelSpec.from_json(text, where), state)


def _first_lost(path: Path) -> str:
    """Name the first entry of a safetensors file that its end cuts off; nothing where its list of entries is damaged.

    The file begins with the length of that list, in 8 bytes, and the list as JSON.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            there = path.stat().st_size - 8 - length
            if there < 0:  # a length that is damaged would be a request for as much memory
                return ""
            entries = json.loads(file.read(length))
        lost = {k: v for k, v in entries.items() if k != "__metadata__" and v["data_offsets"][1] > there}
        first = min(lost, key=lambda k: lost[k]["data_offsets"][1], default="")
        return f"{first} of shape {tuple(lost[first]['shape'])} is not whole" if first else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def _read_torch(path: Path, where: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        foreign = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign is None:
            raise CheckpointError(f"{where} is damaged or cut short ({_line(error)}); copy it again") from None
        raise CheckpointError(
            f"{where} holds Python objects that could run code ({foreign[1]}), and is refused; where it was trained, "
            "save its weights alone: torch.save(checkpoint['model_state'], 'weights.pt')"
        ) from None
    return state_dict_in(content, where)


def _line(error: Exception) -> str:
    """Return the first line of an error, without what follows a full stop."""
    return str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__


def _skeleton(spec: ModelSpec) -> nn.Module:
    """Build the network without memory for its weights."""
    with without_values():
        return build_model(
            spec.architecture, in_channels=spec.in_channels, out_channels=spec.out_channels, **spec.options
        )


def _with_weights(spec: ModelSpec, state: Mapping[str, Tensor], where: str) -> nn.Module:
    if encoder_alone(state):
        raise CheckpointError(
            f"{where} holds an encoder without a decoder and cannot predict; start a training of {spec.architecture} "
            "from it, with init: the path of this file"
        )
    try:
        model = _skeleton(spec)
    except (TypeError, ValueError, RuntimeError, InputError) as error:
        raise CheckpointError(f"{where} describes a network that cannot be built: {_line(error)}") from None
    _check_fit(model.state_dict(), state, where)
    _check_finite(state, where)
    model.load_state_dict(_single(state), assign=True)
    return model.eval()


def _single(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()}


def _check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    for key, value in expected.items():
        if key not in state:
            raise CheckpointError(
                f"{where} lacks {key} of shape {tuple(value.shape)} and belongs to another architecture; "
                "give the one that it was trained with"
            )
        if state[key].shape != value.shape:
            raise CheckpointError(
                f"{where} has {key} of shape {tuple(state[key].shape)} where the network has {tuple(value.shape)}; "
                "give the architecture and options that it was trained with"
            )
    surplus = next((key for key in state if key not in expected), None)
    if surplus is not None:
        raise CheckpointError(
            f"{where} has {surplus} of shape {tuple(state[surplus].shape)}, which the network lacks; "
            "give the architecture and options that it was trained with"
        )


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(
                f"{where} has values in {key} that are no numbers; use one from before training failed"
            )


def _write_whole(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
