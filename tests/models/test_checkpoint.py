import hashlib
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from vimvol.errors import CheckpointError, InputError, StorageError
from vimvol.models import ModelSpec, build_model, load_checkpoint, save_checkpoint, shipped
from vimvol.models.checkpoint import read_spec

NAME = "unet-nano"
SPEC = ModelSpec(
    NAME,
    {"features": 4, "depth": 2},
    voxel_sizes=((40.0, 4.0, 4.0), (8.0, 8.0, 8.0)),
    card={"data": "synthetic", "licence": "CC0"},
)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(NAME, **SPEC.options).eval()


@pytest.fixture
def file(model, tmp_path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, model, SPEC)
    return path


def refused(path: object, says: str, kind: type[Exception] = CheckpointError, **options) -> str:
    with pytest.raises(kind, match=says) as caught:
        load_checkpoint(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_round_trip(model, file):
    loaded = load_checkpoint(file)
    assert not loaded.model.training
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.spec == read_spec(file)
    assert loaded.spec.voxel_sizes == SPEC.voxel_sizes
    assert dict(loaded.spec.options) == {"features": 4, "depth": 2}
    state = loaded.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in loaded.model.parameters())  # training may go on from it


def test_same_weights_give_the_same_file(model, file, tmp_path):
    save_checkpoint(tmp_path / "again.safetensors", model, SPEC)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_half_precision_storage(model, file, tmp_path):
    small = tmp_path / "half.safetensors"
    save_checkpoint(small, model, SPEC, dtype=torch.float16)
    assert small.stat().st_size < 0.7 * file.stat().st_size
    loaded = load_checkpoint(small).model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.state_dict(), dict(model.state_dict()), rtol=1e-3, atol=1e-6)


def test_description_survives_json_and_newer_ones_are_refused():
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC
    for text, says in [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (SPEC.to_json().replace('"format": 1', '"format": 2'), "version 2.*update"),
        (SPEC.to_json().replace("voxel_sizes", "pixel_sizes"), "does not fit.*pixel_sizes"),
    ]:
        with pytest.raises(CheckpointError, match=says):
            ModelSpec.from_json(text)


def test_descriptions_that_make_no_sense():
    with pytest.raises(CheckpointError, match="2 channels of prediction; name one class"):
        ModelSpec(NAME, out_channels=2)
    with pytest.raises(CheckpointError, match="normalize='max'"):
        ModelSpec(NAME, normalize="max")


def test_saving_is_all_or_nothing(model, file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match="where the network has"):
        save_checkpoint(file, build_model(NAME, features=8, depth=2), SPEC)
    broken = build_model(NAME, **SPEC.options)
    with torch.no_grad():
        broken.out_conv.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"out_conv\.bias that are no numbers"):
        save_checkpoint(file, broken, SPEC)
    assert file.read_bytes() == before
    with pytest.raises(StorageError, match="could not be written"):
        save_checkpoint(file / "below" / "weights.safetensors", model, SPEC)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]  # no temporary file stays


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model_state": s, "epoch": 1, "best_metric": 0.5}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_unet_of_torch_em(model, tmp_path, wrap, prefix):
    path = tmp_path / "best.pt"
    torch.save(wrap({prefix + k: v for k, v in model.state_dict().items()}), path)
    loaded = load_checkpoint(path)
    assert loaded.spec.architecture == "unet"
    assert dict(loaded.spec.options) == {"features": 4, "depth": 2, "upsampling": "bilinear"}
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model(x))


def test_names_of_unet_in_torch_em():
    state = build_model("unet-nano").state_dict()
    modules = {k.rsplit(".", 1)[0] for k in state}
    blocks = [f"{side}.blocks.{n}" for side in ("encoder", "decoder") for n in range(4)] + ["base"]
    convolutions = {f"{b}.block.{i}" for b in blocks for i in (1, 4)}
    assert modules == convolutions | {f"decoder.samplers.{n}.conv" for n in range(4)} | {"out_conv"}


def test_safetensors_without_a_description(model, tmp_path):
    safetensors.torch.save_file(model.state_dict(), tmp_path / "bare.safetensors")
    assert load_checkpoint(tmp_path / "bare.safetensors").spec.architecture == "unet"
    assert read_spec(tmp_path / "bare.safetensors").out_channels == 1


def test_missing_files_and_names(tmp_path):
    refused(tmp_path / "none.pt", "no file is called .*; or give the path", InputError)
    refused("vimunet-nan", "did you mean 'vimunet-nano'", InputError)
    refused(tmp_path, "is a folder", InputError)
    without = next(n for n in ("vimunet-small", "vimunet-tiny") if n not in shipped())
    refused(without, f"no weights of {without} come with the package; .*train it or give", InputError)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(40), b"PK"])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    refused(path, "neither safetensors nor|damaged or cut short")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_files(model, file, tmp_path, share):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for path in (file, tmp_path / "weights.pt"):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        refused(path, "damaged or cut short")


def test_the_entry_at_which_a_file_is_cut_off_is_named(model, file):
    with safetensors.safe_open(file, framework="pt") as opened:
        shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    named = refused(file, "of shape .* is not whole")
    assert any(f"({key} of shape {shape} is not whole)" in named for key, shape in shapes.items())
    begin = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:begin])
    assert refused(file, "is not whole") != named
    file.write_bytes(whole[: begin // 2])
    assert "is not whole" not in refused(file, "damaged or cut short")
    file.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    refused(file, "damaged or cut short")


class Payload:
    def __init__(self) -> None:
        self.value = 1


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_objects_are_refused(model, tmp_path, legacy):
    content = {"model_state": model.state_dict(), "dataset": Payload()}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    line = refused(tmp_path / "weights.pt", r"could run code \(.*Payload\), and is refused")
    assert "model_state" in line


def test_files_without_weights(tmp_path):
    for content, says in [
        ({"epoch": 1}, "holds no weights.*'epoch'"),
        ([1, 2], "holds no weights.*list"),
        ({}, "holds"),
        ({"epoch": 0, "pytorch-lightning_version": "2.6.0"}, "a training goes on from.*MODEL.safetensors"),
    ]:
        torch.save(content, tmp_path / "weights.pt")
        refused(tmp_path / "weights.pt", says)


def test_other_architectures(model, file, tmp_path):
    refused(file, "holds unet-nano, not vimunet-nano; ask for unet-nano", architecture="vimunet-nano")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pt")
    refused(tmp_path / "resnet.pt", "another architecture .first entry 'conv1.weight'")


def test_entries_that_do_not_fit(model, tmp_path):
    path, state = tmp_path / "weights.pt", model.state_dict()
    torch.save({k: v for k, v in state.items() if k != "out_conv.bias"}, path)
    refused(path, r"lacks out_conv.bias of shape \(1,\)")
    torch.save(state | {"base.block.4.weight": torch.zeros(5, 5, 3, 3)}, path)
    refused(path, re.escape("base.block.4.weight of shape (5, 5, 3, 3) where the network has (16, 16, 3, 3)"))
    torch.save(state | {"base.block.0.weight": torch.zeros(8)}, path)
    refused(path, r"has base.block.0.weight of shape \(8,\), which the network lacks")
    torch.save(state | {"base.block.4.bias": torch.full((16,), float("inf"))}, path)
    refused(path, "base.block.4.bias that are no numbers")
    torch.save({k: v for k, v in state.items() if not k.startswith("out_conv")}, path)
    refused(path, "out_conv.weight")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"unet-nano"', '"unet-milli"'), ('"features": 4', '"features": "x"'), ('"depth": 2', '"height": 2')],
)
def test_descriptions_that_build_no_network(model, tmp_path, old, new):
    text = SPEC.to_json().replace(old, new)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, metadata={"vimvol": text})
    refused(path, "cannot be built")


@pytest.mark.parametrize("name", shipped() or [pytest.param("none", marks=pytest.mark.skip("no weights come along"))])
def test_shipped_weights(name):
    loaded = load_checkpoint(name)
    assert loaded.spec.architecture == name
    assert {"data", "licence"} <= set(loaded.spec.card)
    logits = loaded.model(torch.randn(1, loaded.spec.in_channels, 64, 64))
    assert torch.isfinite(logits).all()
