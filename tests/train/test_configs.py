"""Every configuration in `configs/train` trains, on small files of the formats that it reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.train.formats import write_data, write_livecell
from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError
from vimvol.models.checkpoint import load_checkpoint
from vimvol.models.nnunet import NNUNet
from vimvol.models.registry import MODELS
from vimvol.models.umamba import UMamba
from vimvol.models.unet import UNet
from vimvol.models.unetr import UNETR
from vimvol.models.vimunet import ViMUNet
from vimvol.train.export import exported
from vimvol.train.fit import fit
from vimvol.train.sources import load_data, load_test_data
from vimvol.train.targets import TARGETS

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))
SMALL = {
    ViMUNet: {"depth": 1, "embedding": 16, "state": 4, "widths": [8, 8, 8, 8, 8]},
    UNet: {"features": 4},
    UNETR: {"depth": 4, "embedding": 16, "heads": 2, "window": 2, "widths": [8, 8, 8, 8, 8]},
    NNUNet: {"patch": [32, 32], "features": 4},
    UMamba: {"patch": [32, 32], "features": 4},
}
"""Options that make every kind of network small; a new kind needs a line."""


def small(path: Path, tmp_path: Path, **more: object) -> TrainConfig:
    """The configuration with two steps of a small network on small crops; all else is as it stands."""
    changes = {
        "options": SMALL[MODELS[load_config(TrainConfig, str(path)).model].build],
        "init": None,
        "root": str(tmp_path / "data"),
        "out": str(tmp_path / "out"),
        "patch": [32, 32],
        "steps": 2,
        "validate_every": 2,
        "validate_slices": 1,
        "threads": 1,
        "workers": 0,
    }
    return load_config(TrainConfig, str(path), changes | more)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_it_trains_two_steps_and_leaves_weights(path, tmp_path):
    config = small(path, tmp_path)
    write_data(config, tmp_path / "data")
    loaded = load_checkpoint(fit(config))
    classes = TARGETS[config.target].classes
    assert loaded.spec.architecture == config.model
    assert loaded.spec.classes == classes
    assert loaded.model(torch.zeros(1, 1, 64, 32)).shape == (1, len(classes), 64, 32)
    assert "2 of 2 steps" in loaded.spec.card["trained"]
    assert np.isfinite([float(part.split()[-1]) for part in loaded.spec.card["scores"].split(", ")]).all()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_it_names_data_licence_and_parts_that_do_not_meet(path):
    config = load_config(TrainConfig, str(path))
    assert config.card["licence"]
    assert config.card["data"]
    assert all(v.validate_ is not None and v.train[1] <= v.validate_[0] for v in config.volumes)
    assert all(len({i.train, i.validate_, i.test}) == 3 for i in config.images)


@pytest.mark.parametrize("path", [p for p in CONFIGS if load_config(TrainConfig, str(p)).init], ids=lambda p: p.stem)
def test_a_training_that_goes_on_starts_from_what_its_start_leaves(path):
    config = load_config(TrainConfig, str(path))
    base = yaml.safe_load(path.read_text(encoding="utf-8"))["base"]
    start = load_config(TrainConfig, str(path.with_name(base)))
    assert Path(config.init) == exported(start)
    assert config.model == start.model
    assert [(v.train, v.validate_) for v in config.volumes] == [(v.train, v.validate_) for v in start.volumes]


def test_the_papers_experiments_are_there():
    names = {p.stem for p in CONFIGS}
    models = [name.replace("-", "_") for name in MODELS if "nano" not in name]
    tasks = ("cremi", "livecell_boundaries", "livecell_distances")
    assert names >= {f"{task}_{model}" for task in tasks for model in models} | {"vimunet_nano", "unet_nano"}


@pytest.mark.parametrize("path", [p for p in CONFIGS if "_" in p.stem and "nano" not in p.stem], ids=lambda p: p.stem)
def test_the_papers_experiments_are_as_the_paper_has_them(path):
    config = load_config(TrainConfig, str(path))
    task, model = path.stem.rsplit(config.model.replace("-", "_"), 1)[0].rstrip("_"), config.model
    assert config.out == f"runs/{task.replace('_', '-')}-{model}"
    assert (config.loss, config.optimizer, config.learning_rate) == ("dice", "adam", 1e-4)
    assert (config.schedule, config.plateau_factor, config.plateau_patience) == ("plateau", 0.9, 10)
    assert (config.steps, config.patch, config.batch) == (100_000, (512, 512), 2)
    assert (config.ema, config.clip, config.weight_decay, config.warmup) == (0, 0, 0, 0)
    targets = {"cremi": "boundary", "livecell_boundaries": "foreground-boundary", "livecell_distances": "distances"}
    assert config.target == targets[task]
    if task == "cremi":
        assert [v.raw[:8] for v in config.volumes] == ["sample_A", "sample_B", "sample_C"]
        assert {(v.train, v.validate_, v.test) for v in config.volumes} == {((0, 75), (75, 100), (100, 125))}


def test_without_data_the_files_are_named_with_their_source(tmp_path):
    folder = Path(CONFIGS[0]).parent
    for name, parts in (
        ("cremi_unet", ["sample_A_20160501.hdf", "vimvol download cremi"]),
        ("livecell_boundaries_unet", ["livecell_coco_train.json", "vimvol download livecell"]),
    ):
        with pytest.raises(InputError) as error:
            fit(small(folder / f"{name}.yaml", tmp_path))
        assert all(part in str(error.value) for part in parts)
        assert not (tmp_path / "out").exists()


def livecell(tmp_path: Path) -> TrainConfig:
    config = small(Path(CONFIGS[0]).parent / "livecell_distances_unet.yaml", tmp_path, validate_slices=9)
    write_data(config, tmp_path / "data")
    return config


def test_images_are_read_with_their_instances(tmp_path):
    config = livecell(tmp_path)
    data = load_data(config)
    assert [len(source) for source in (*data.train, *data.validate, *load_test_data(config))] == [2, 2, 2]
    one = data.train[0].read(0)
    assert one.raw.shape == one.labels.shape == (52, 70)
    assert one.raw.dtype == np.uint8
    assert len(np.unique(one.labels)) == 4  # three cells and background: the crowd is below the smallest size
    assert one.standardised().mean() == pytest.approx(0, abs=1e-3)
    assert one.standardised().std() == pytest.approx(1, abs=1e-3)
    assert (one.raw[one.labels > 0].mean() - one.raw[one.labels == 0].mean()) > 10


def test_images_that_are_missing_or_of_another_shape_are_told(tmp_path):
    config = livecell(tmp_path)
    source = load_data(config).train[0]
    Path(source.paths[0]).write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        source.read(0)
    Path(source.paths[0]).unlink()
    with pytest.raises(InputError, match=r"1 of 2 images of .*livecell_coco_train\.json are not below"):
        load_data(config)
    write_livecell(tmp_path / "data" / "images", [tmp_path / "data" / config.images[0].train])
    text = (tmp_path / "data" / config.images[0].train).read_text()
    (tmp_path / "data" / config.images[0].train).write_text(text.replace('"height": 52', '"height": 53'))
    with pytest.raises(InputError, match=r"shape \(52, 70\) and its annotations \(53, 70\)"):
        load_data(config).train[0].read(0)
