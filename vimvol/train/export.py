"""From a training folder to a weights file with its model card."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vimvol import __version__
from vimvol.config import TrainConfig
from vimvol.errors import InputError
from vimvol.models.checkpoint import read_spec, save_checkpoint
from vimvol.models.registry import build_model
from vimvol.models.spec import ModelSpec
from vimvol.train.targets import TARGETS

LAST, BEST = "last.ckpt", "best.ckpt"


def export_best(config: TrainConfig) -> Path:
    """Write the averaged weights of the best validation so far as safetensors, beside the checkpoints.

    May be called while the training runs.

    Returns
    -------
    Path
        ``<out>/<model>.safetensors``.

    Raises
    ------
    InputError
        If there is no checkpoint yet, or it cannot be read.
    """
    folder = Path(config.out)
    path = next((folder / name for name in (BEST, LAST) if (folder / name).exists()), None)
    if path is None:
        raise InputError(f"{folder} holds no checkpoint, so there is nothing to export; train first")
    state = read_checkpoint(path)
    model = new_network(config)
    prefix = "average."
    weights = {k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)}
    model.load_state_dict(weights)
    threshold = state["card"]["scores"].get("val/threshold") if config.calibrate else None
    calibrated = threshold is not None and _calibrate(model, threshold)
    target = exported(config)
    save_checkpoint(target, model, _spec(config, state, calibrated=calibrated))
    return target


def new_network(config: TrainConfig) -> nn.Module:
    """Return the network that a configuration trains, freshly initialised."""
    return build_model(config.model, out_channels=len(TARGETS[config.target].classes), **network_options(config))


def network_options(config: TrainConfig) -> dict[str, Any]:
    """Return what makes the network of a configuration differ from others of its name; weights files carry it."""
    return dict(config.options)


def exported(config: TrainConfig) -> Path:
    """Return where the weights of a training are, or will be."""
    return Path(config.out) / f"{config.model}.safetensors"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training; no code in it can run.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"checkpoint {path} cannot be read ({reason}), so the training cannot go on; delete it to start anew"
        ) from None
    return state


def _calibrate(model: nn.Module, threshold: float) -> bool:
    """Shift the logits so that the probability that parts inside from boundary best becomes .5, if a bias can do it.

    Whoever uses the weights then needs no threshold of their own. The shift raises all probabilities, which the prior
    of the multicut (``agglomerate.beta``, low by default) takes back.
    """
    last = getattr(model, "out_conv", None)
    bias = getattr(last, "bias", None)
    if not isinstance(bias, torch.Tensor):
        return False
    with torch.no_grad():
        bias.add_(math.log((1 - threshold) / threshold))
    return True


def _spec(config: TrainConfig, state: dict[str, Any], *, calibrated: bool) -> ModelSpec:
    facts = state["card"]
    classes = TARGETS[config.target].classes
    card = {
        **config.card,
        "commit": commit(),
        "trained": f"{state['global_step']} of {config.steps} steps of {config.batch} crops of "
        f"{config.patch[0]} x {config.patch[1]}, seed {config.seed}",
        "scores": ", ".join(f"{name.removeprefix('val/')} {value:.3f}" for name, value in facts["scores"].items())
        or "not validated",
    }
    if config.init is not None:
        before = read_spec(config.init).card
        parts = (before.get("history"), before.get("trained"), "then as trained")
        card["history"] = "; ".join(filter(None, parts))
    if calibrated:
        card["calibration"] = "logits are shifted so that the threshold of the best score, here given as learned, is .5"
    return ModelSpec(
        config.model,
        options=network_options(config),
        out_channels=len(classes),
        classes=classes,
        card=card,
        voxel_sizes=tuple(tuple(size) for size in facts["voxel_sizes"]),
    )


def commit(file: Path = Path(__file__)) -> str:
    """Return the commit of the checkout that holds a file of this package; of an installed one, its version.

    An environment often lies inside the repository of another project, whose commits say nothing of this package.
    """
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        return _git(file, "rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"


def _git(file: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
