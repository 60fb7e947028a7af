from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from vimvol.config import TrainConfig, TrainDrawn
from vimvol.errors import OutputExistsError
from vimvol.sample import Look
from vimvol.train import drawn, sources
from vimvol.train.dataset import CropDataset
from vimvol.train.drawn import draw_volumes
from vimvol.train.fit import fit
from vimvol.train.nnunet import export_dataset
from vimvol.train.sources import load_data


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(drawn, "SECTIONS", (2, 64, 72))
    monkeypatch.setattr(drawn, "ISOTROPIC", (24, 40, 48))


def test_equal_seeds_draw_equal_volumes_and_every_volume_is_of_another_kind():
    first, again = list(draw_volumes(TrainDrawn(volumes=6))), list(draw_volumes(TrainDrawn(volumes=6)))
    for (spec, raw, labels), (same, *others) in zip(first, again, strict=True):
        assert spec == same
        assert raw.shape == labels.shape == spec.shape
        np.testing.assert_array_equal(raw, others[0])
        np.testing.assert_array_equal(labels, others[1])
    assert len({(s.neurite_size, s.membrane_width, s.noise, s.seed) for s, *_ in first}) == 6
    assert [s.serial_sections for s, *_ in first] == [True, True, False] * 2
    assert next(draw_volumes(TrainDrawn(seed=1)))[0] != first[0][0]
    assert len({s.look for s, *_ in first}) == 6
    few = list(draw_volumes(TrainDrawn(volumes=2)))
    assert [s for s, *_ in few] == [s for s, *_ in first[:2]], "another number draws others"


def test_without_looks_neurites_are_the_same_under_the_usual_stain():
    plain = list(draw_volumes(TrainDrawn(volumes=3, looks=False)))
    for (spec, raw, labels), (other, painted, same) in zip(plain, draw_volumes(TrainDrawn(volumes=3)), strict=True):
        assert spec.look == Look()
        assert replace(other, look=Look()) == spec
        assert (raw != painted).mean() > 0.5
        np.testing.assert_array_equal(labels, same)


def test_they_have_their_share_of_the_crops(config):
    data = load_data(config.model_copy(update={"drawn": TrainDrawn(volumes=3, weight=0.5)}))
    names = [source.name for source in data.train]
    assert [name.split("-")[-1] for name in names] == ["z", "y", "z", "z", "z", "y", "x"]
    assert sum(data.shares) == pytest.approx(1)
    assert sum(data.shares[2:]) == pytest.approx(1 / 3), "0.5 beside 1"
    assert sum(data.shares[4:]) == pytest.approx(1 / 9), "all volumes have the same"
    assert data.voxel_sizes == load_data(config).voxel_sizes, "the network is used at the scale of recordings"


def test_they_are_not_exported_nor_drawn_for_weights_that_are_there(config, tmp_path, monkeypatch):
    config = config.model_copy(update={"drawn": TrainDrawn(volumes=1), "steps": 2})
    told = []
    weights = fit(config, told.append)
    assert told == ["drawing synthetic volumes (1), a few seconds each"]
    weights.unlink()
    told.clear()

    def fail(_):
        raise AssertionError("volumes are drawn")

    monkeypatch.setattr(sources, "draw_volumes", fail)
    assert fit(config, told.append) == weights
    assert weights.exists()
    assert [text for text in told if "drawing" in text] == []
    done = export_dataset(config, str(tmp_path), 7, "Cells")
    plain = export_dataset(config.model_copy(update={"drawn": None}), str(tmp_path), 8, "Cells")
    assert done == replace(plain, folder=done.folder)


def test_nothing_is_left_to_validate_on_where_all_is_drawn():
    with pytest.raises(ValidationError, match="nothing to validate on but what is drawn"):
        TrainConfig(out="out", drawn=TrainDrawn())


def test_crops_of_them_are_cut_as_of_any_other_volume(config):
    unseen = config.volumes[0].model_copy(update={"train": None, "validate_": (0, 8)})
    whole = config.model_dump(by_alias=True) | {
        "volumes": [unseen.model_dump(by_alias=True)],
        "drawn": {"volumes": 3},
    }
    config = TrainConfig.model_validate(whole)
    for crop in CropDataset(load_data(config), config, 0, 6):
        assert crop["image"].shape == (1, 32, 32)
        assert abs(crop["image"].mean()) < 3
    assert any((crop["target"] > 0).any() for crop in CropDataset(load_data(config), config, 0, 6))


def test_a_training_that_was_begun_before_there_were_looks_goes_on_without(config):
    config = config.model_copy(update={"drawn": TrainDrawn(volumes=1, looks=False), "steps": 2})
    weights = fit(config)
    saved = Path(config.out) / "config.yaml"
    saved.write_text(saved.read_text().replace("  looks: false\n", ""))
    with pytest.raises(OutputExistsError, match=r"another drawn; .*yaml again, with drawn\.looks=false, which it does"):
        fit(config.model_copy(update={"drawn": TrainDrawn(volumes=1)}))
    assert "looks" not in saved.read_text()
    assert fit(config) == weights
