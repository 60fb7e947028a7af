"""Slices that are shown to the network at the size of voxels that it was trained on, in whole runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from tests.support import digest, random_network
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError
from vimvol.infer.predictor import Predictor
from vimvol.io import open_volume
from vimvol.preflight.planes import rescaled_text, scale_of
from vimvol.preflight.prepare import prepare

TRAINED = ((50.0, 4.6, 4.6), (10.0, 10.0, 10.0))
SETTINGS = {
    "predict.tile": [32, 32],
    "predict.halo": [8, 8],
    "output.chunk": [2, 16, 24],
    "output.shard": [2, 32, 24],
    "output.levels": 1,
    "fragments.tile": [1, 32, 24],
    "segment.mode": "2d",
    "run.workers": 0,
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("volume") / "raw.zarr"
    zarr.create_array(str(path), data=np.random.default_rng(0).integers(1, 256, (2, 70, 60), np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_network(tmp_path_factory.mktemp("network") / "random.safetensors", voxel_sizes=TRAINED)


def config(model: str, size: float, **changes: object) -> SegmentConfig:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(
        SegmentConfig, None, {**SETTINGS, "predict.model": model, "input.voxel_size": [40, size, size], **given}
    )


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((50, 4.6, 4.6), 1),
        ((40, 4.5, 4.8), 1),
        ((40, 4.0, 4.0), 1),
        ((50, 7.6, 7.6), 7.6 / 4.6),  # nearer to 10, but of sections
        ((40, 3.0, 3.0), 3 / 4.6),
        ((8, 8, 8), 0.8),
        ((16, 16, 16), 1.6),
        ((10, 10, 10), 1),
        ((1, 1, 1), 1),  # what is written where nobody knows
        ((40, 40, 40), 1),
    ],
)
def test_the_scale_is_that_to_the_nearest_of_the_volumes_trained_on(volume: str, size, scale: float) -> None:
    sized = open_volume(volume, voxel_size=size)
    expected = (1.0, 1.0, 1.0) if scale == 1 else tuple(s / size[1] * scale for s in size)
    assert scale_of(sized, TRAINED) == pytest.approx(expected)
    assert scale_of(sized, ()) == (1.0, 1.0, 1.0)


def test_nothing_is_rescaled_where_the_size_of_voxels_is_not_known(volume: str, model: str, tmp_path: Path) -> None:
    sized = dataclasses.replace(open_volume(volume, voxel_size=(40, 3, 3)), voxel_size_known=False)
    assert scale_of(sized, TRAINED) == (1.0, 1.0, 1.0)
    lines: list[str] = []
    unknown = config(model, 7.6, input__voxel_size=None, predict__rescale="auto")
    prepare(volume, str(tmp_path / "x.zarr"), unknown, tell=lines.append)
    assert lines[-1].startswith("not used: predict.rescale = auto, as the voxel size is not known")


def test_blocks_do_not_change_a_byte_of_what_is_predicted_at_another_scale(
    volume: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, logits = set(), Predictor._logits

    def noting(self: Predictor, batch: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
        shapes.add(tuple(batch.shape[-2:]))
        return logits(self, batch, bfloat16=bfloat16)

    monkeypatch.setattr(Predictor, "_logits", noting)
    job = prepare(volume, str(tmp_path / "x.zarr"), config(model, 7.6, predict__rescale="auto"))
    assert "slices of 7.6 x 7.6 nm a voxel (y, x) are shown to the network at 4.56 x 4.56 nm" in rescaled_text(job)
    outs = []
    for block in (None, [2, 64, 72]):
        outs.append(tmp_path / f"{block}.zarr")
        segment_volume(volume, str(outs[-1]), config(model, 7.6, predict__rescale="auto", run__block=block))
    assert digest(outs[0]) == digest(outs[1])
    # windows of 32 + 2 x 8 voxels, 7.6 / 4.6 as wide
    assert shapes == {(80, 80)}


def test_the_scale_is_part_of_the_keys_of_what_follows_only_where_there_is_one(
    volume: str, model: str, tmp_path: Path
) -> None:
    def keys(size: float, rescale: str) -> dict[str, str]:
        return prepare(volume, str(tmp_path / "x"), config(model, size, predict__rescale=rescale)).keys

    assert keys(4.8, "auto") == keys(4.8, "none")
    assert rescaled_text(prepare(volume, str(tmp_path / "x"), config(model, 7.6, predict__rescale="none"))) == ""
    scaled, stored = keys(7.6, "auto"), keys(7.6, "none")
    assert all(scaled[stage] != stored[stage] for stage in scaled)


@pytest.mark.parametrize(("size", "warned"), [(4.6, False), (7.6, False), (60.0, True), (1.0, True)])
def test_voxels_of_another_kind_are_warned_of(
    volume: str, model: str, tmp_path: Path, size: float, warned: bool
) -> None:
    """They are shown as they are stored, as a size given in another unit would be."""
    told: list[str] = []
    for rescale in ("auto", "none"):
        prepare(volume, str(tmp_path / "x"), config(model, size, predict__rescale=rescale), tell=told.append)
        found = [text for text in told if "times off those of 4.6 and 10 nm that the network was trained on" in text]
        assert len(found) == warned, "once, and not where it is told to show them so"


def test_an_output_that_knows_nothing_of_the_setting_was_predicted_as_stored(
    volume: str, model: str, tmp_path: Path
) -> None:
    """As those of earlier versions were."""
    out = tmp_path / "out.zarr"
    segment_volume(volume, str(out), config(model, 7.6, predict__rescale="none"))
    manifest = json.loads((out / "vimvol" / "run.json").read_text())
    del manifest["config"]["predict"]["rescale"]
    (out / "vimvol" / "run.json").write_text(json.dumps(manifest))
    agglomerate(str(out), ["agglomerate.beta=0.4"], name="other", workers=0)
    assert (out / "labels" / "other" / "0").is_dir()
    with pytest.raises(InputError, match=r"predict\.rescale: none -> auto"):
        segment_volume(volume, str(out), config(model, 7.6))
