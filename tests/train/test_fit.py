from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import vimvol.train.dataset
from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError, MissingExtraError, OutputExistsError
from vimvol.models.checkpoint import load_checkpoint
from vimvol.train import fit as fit_module
from vimvol.train.fit import fit

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def test_training_leaves_weights_with_a_card_checkpoints_scores_and_its_configuration(config):
    path = fit(config)
    out = Path(config.out)
    assert path == out / "unet-nano.safetensors"
    loaded = load_checkpoint(path)
    assert loaded.model(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert loaded.spec.architecture == "unet-nano"
    assert loaded.spec.voxel_sizes == ((10.0, 10.0, 10.0),)
    assert loaded.spec.card["licence"] == "none of your concern"
    assert "of 4 steps" in loaded.spec.card["trained"]
    assert "msa" in loaded.spec.card["scores"]
    assert loaded.spec.card["commit"]
    assert {p.name for p in out.iterdir()} == {"config.yaml", "last.ckpt", "best.ckpt", "logs", path.name}
    assert load_config(TrainConfig, str(out / "config.yaml")) == config
    assert "val/msa" in next(out.glob("logs/*/metrics.csv")).read_text()


def test_exported_logits_are_shifted_to_a_threshold_of_a_half(config):
    loaded = load_checkpoint(fit(config))
    state = torch.load(Path(config.out) / "best.ckpt", weights_only=True)
    learned = state["card"]["scores"]["val/threshold"]
    shift = float(loaded.model.out_conv.bias.detach() - state["state_dict"]["average.out_conv.bias"])
    assert 1 / (1 + np.exp(shift)) == pytest.approx(learned, abs=1e-5)


def test_an_interrupted_training_ends_with_the_same_weights(config, tmp_path, monkeypatch):
    whole = fit(config)
    parts = config.model_copy(update={"out": str(tmp_path / "parts")})
    original = vimvol.train.dataset.CropDataset.crop

    def interrupt(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(vimvol.train.dataset.CropDataset, "crop", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(parts)
    assert (tmp_path / "parts" / "last.ckpt").exists()
    assert not (tmp_path / "parts" / "unet-nano.safetensors").exists()
    fit(parts)

    states = [torch.load(Path(c.out) / "last.ckpt", weights_only=True) for c in (config, parts)]
    assert [s["global_step"] for s in states] == [4, 4]
    for key, value in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][key], value, rtol=0, atol=0)
    resumed = weights_of(tmp_path / "parts" / "unet-nano.safetensors")
    for key, value in weights_of(whole).items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_a_finished_training_is_only_exported_again(config, monkeypatch):
    path = fit(config)
    before = weights_of(path)
    path.unlink()

    def fail(*_):
        raise AssertionError("a crop was read")

    monkeypatch.setattr(vimvol.train.dataset.CropDataset, "crop", fail)
    after = weights_of(fit(config))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_without_validation_the_last_weights_are_exported(config):
    volume = config.volumes[0].model_copy(update={"validate_": None})
    path = fit(config.model_copy(update={"volumes": (volume,), "steps": 3}))
    spec = load_checkpoint(path).spec
    assert spec.card["scores"] == "not validated"
    assert spec.card["trained"].startswith("3 of 3 steps")


def test_a_folder_of_another_training_is_refused(config):
    out = Path(config.out)
    out.mkdir()
    (out / "last.ckpt").touch()
    with pytest.raises(OutputExistsError, match=r"config\.yaml"):
        fit(config)
    (out / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    with pytest.raises(OutputExistsError, match="another learning_rate, seed"):
        fit(config.model_copy(update={"seed": 7, "learning_rate": 0.1}))
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read"):
        fit(config)


@pytest.mark.parametrize("module", ["lightning", "monai"])
def test_a_missing_extra_is_told_with_its_command(config, module, monkeypatch):
    found = fit_module.importlib.util.find_spec
    monkeypatch.setattr(fit_module.importlib.util, "find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(MissingExtraError, match=rf"{module}.*pip install 'vimvol\[train\]'"):
        fit(config)


def test_missing_data_are_told_before_anything_is_written(config):
    volume = config.volumes[0].model_copy(update={"raw": "nothing.h5"})
    with pytest.raises(InputError, match="does not exist") as error:
        fit(config.model_copy(update={"volumes": (volume,)}))
    assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_configuration_is_valid(path):
    config = load_config(TrainConfig, str(path))
    assert config.card["licence"]
    assert config.card["data"]
    assert all(v.validate_ is not None and v.train[1] <= v.validate_[0] for v in config.volumes)


def test_there_are_shipped_configurations():
    assert {p.stem for p in CONFIGS} >= {"vimunet_nano", "unet_nano"}


def test_training_starts_from_given_weights(config, tmp_path):
    first = fit(config)
    further = config.model_copy(update={"out": str(tmp_path / "further"), "init": str(first), "learning_rate": 1e-9})
    for key, value in weights_of(fit(further)).items():
        if not key.startswith("out_conv"):  # its bias is calibrated in the export
            torch.testing.assert_close(value, weights_of(first)[key], rtol=0, atol=1e-4)


def test_weights_of_another_network_are_no_start(config):
    with pytest.raises(InputError, match="vimunet-nano holds another network than model = unet-nano"):
        fit(config.model_copy(update={"init": "vimunet-nano"}))
    assert not Path(config.out).exists()
