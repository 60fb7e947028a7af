import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from vimvol import __version__
from vimvol.config import TrainConfig, load_config
from vimvol.errors import IncompleteRunError, InputError, MissingExtraError, OutputExistsError
from vimvol.models.checkpoint import ModelSpec, load_checkpoint, save_checkpoint
from vimvol.models.registry import build_model
from vimvol.train import fit as fit_module
from vimvol.train.callbacks import CAPTION
from vimvol.train.dataset import CropDataset
from vimvol.train.export import commit, new_network
from vimvol.train.fit import fit
from vimvol.train.module import BoundaryModule
from vimvol.train.targets import TARGETS


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
    assert {p.name for p in out.iterdir()} == {"config.yaml", "last.ckpt", "best.ckpt", "logs", "pictures", path.name}
    picture = plt.imread(out / "pictures" / "step-00000002-0-cells.png")
    assert picture.shape[:2] == (2 * (CAPTION + 60), 2 * 70)  # raw, target; below: nothing, prediction
    assert set(np.unique(picture[CAPTION : CAPTION + 60, 70:, 0])) == {0.0, 1.0}
    assert load_config(TrainConfig, str(out / "config.yaml")) == config
    assert "val/msa" in next(out.glob("logs/*/metrics.csv")).read_text()


def test_exported_logits_are_shifted_to_a_threshold_of_a_half(config):
    loaded = load_checkpoint(fit(config))
    state = torch.load(Path(config.out) / "best.ckpt", weights_only=True)
    learned = state["card"]["scores"]["val/threshold"]
    shift = float(loaded.model.out_conv.bias.detach() - state["state_dict"]["average.out_conv.bias"])
    assert 1 / (1 + np.exp(shift)) == pytest.approx(learned, abs=1e-5)


def same_end(one: TrainConfig, other: TrainConfig) -> None:
    """Everything that a training goes on from is the same to the bit."""
    states = [torch.load(Path(c.out) / "last.ckpt", weights_only=True) for c in (one, other)]
    assert [s["global_step"] for s in states] == [one.steps] * 2
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    for key, value in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][key], value, rtol=0, atol=0)
    moments = [s["optimizer_states"][0]["state"] for s in states]
    for number, entries in moments[0].items():
        for name, value in entries.items():
            torch.testing.assert_close(moments[1][number][name], value, rtol=0, atol=0)
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    assert states[0]["card"] == states[1]["card"]
    assert states[0]["plateau"] == states[1]["plateau"]
    weights = [weights_of(Path(c.out) / "unet-nano.safetensors") for c in (one, other)]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=0)


class KilledError(Exception):
    """Stands for whatever ends a process without asking it."""


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_killed_training_ends_with_the_same_weights(config, tmp_path, monkeypatch, schedule):
    """Killed in the second epoch, before anything of it is saved: it begins again behind the first validation."""
    config = config.model_copy(update={"schedule": schedule, "plateau_patience": 0, "plateau_factor": 0.5})
    fit(config)
    parts = config.model_copy(update={"out": str(tmp_path / "parts")})
    original = CropDataset.crop

    def interrupt(self, number):
        if number == 3:
            raise KilledError
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(CropDataset, "crop", interrupt)
        with pytest.raises(KilledError):
            fit(parts)
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert not (tmp_path / "parts" / "unet-nano.safetensors").exists()
    fit(parts)
    same_end(config, parts)


@pytest.fixture
def interruptible():
    """Ctrl-C as at a terminal: a process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("step", [2, 3, 4, 7])
def test_a_training_that_is_asked_to_stop_goes_on_from_the_same_step(config, tmp_path, monkeypatch, caplog, step):
    """In the middle of an epoch of three steps, at its end, and at the end of all, whose last epoch is short."""
    caplog.set_level("INFO")
    config = config.model_copy(update={"steps": 7, "validate_every": 3, "batch": 2})
    fit(config)
    parts = config.model_copy(update={"out": str(tmp_path / "parts")})
    original = BoundaryModule.training_step

    def stop(self, batch, batch_idx):
        if self.global_step == step - 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(BoundaryModule, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(parts)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["global_step"] == step
    fit(parts)
    same_end(config, parts)
    scores = [table(c)["val/loss"].dropna() for c in (config, parts)]
    assert scores[0].tolist() == scores[1].tolist()
    assert len(scores[0]) == 3
    assert not caplog.messages, "what Lightning has to say of its own workings"


def table(config: TrainConfig) -> pd.DataFrame:
    """All logs of a training, those of its continuations included."""
    files = sorted((Path(config.out) / "logs").glob("*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    return pd.concat([pd.read_csv(file) for file in files])


def test_a_checkpoint_is_written_between_validations_after_a_time(config, monkeypatch):
    saved = []
    original = lightning.Trainer.save_checkpoint

    def save(self, path, *rest):
        saved.append((self.global_step, Path(path).name))
        original(self, path, *rest)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", save)
    fit(config.model_copy(update={"save_minutes": 1e-9}))
    assert [step for step, name in saved if name == "last.ckpt"] == [1, 2, 3, 4]


def test_workers_cut_the_same_crops(config, tmp_path):
    fit(config)
    other = config.model_copy(update={"out": str(tmp_path / "workers"), "workers": 2})
    fit(other)
    same_end(config, other)


def test_training_ends_early_where_nothing_improves(config):
    flat = config.model_copy(update={"learning_rate": 1e-30, "steps": 20, "validate_every": 1, "patience": 2, "ema": 0})
    fit(flat)
    assert torch.load(Path(config.out) / "last.ckpt", weights_only=True)["global_step"] == 3


def test_two_processes_train_one_network(config, tmp_path):
    """The crops of a step are divided: two of each device give nearly the step of four."""
    alone = config.volumes[0].model_copy(update={"train": None, "validate_": (7, 8)})  # the second process gets nothing
    config = config.model_copy(update={"volumes": (*config.volumes, alone)})
    config = config.model_copy(update={"batch": 4, "steps": 3, "schedule": "constant", "warmup": 0, "loss": "dice"})
    fit(config)
    apart = config.model_copy(update={"out": str(tmp_path / "apart"), "devices": 2})
    file = tmp_path / "apart.yaml"
    file.write_text(yaml.safe_dump(apart.model_dump(mode="json", by_alias=True)))
    command = [sys.executable, "-m", "vimvol", "train", str(file)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights") == 1
    assert load_config(TrainConfig, str(tmp_path / "apart" / "config.yaml")) == apart
    states = [torch.load(Path(c.out) / "last.ckpt", weights_only=True) for c in (config, apart)]
    assert [s["global_step"] for s in states] == [3, 3]
    assert states[1]["card"]["scores"].keys() == states[0]["card"]["scores"].keys()
    assert states[1]["card"]["scores"]["val/loss"] == pytest.approx(states[0]["card"]["scores"]["val/loss"], abs=0.05)
    start = build_model("unet-nano", **config.options).state_dict()  # of another seed: far away
    for key, value in states[0]["state_dict"].items():
        if key.startswith("model.") and key.endswith("weight"):
            near = float((states[1]["state_dict"][key] - value).abs().mean())
            far = float((start[key.removeprefix("model.")] - value).abs().mean())
            assert near < 0.2 * far, key


def test_mixed_precision_keeps_weights_in_float32(config):
    path = fit(config.model_copy(update={"precision": "bfloat16"}))
    assert {v.dtype for v in weights_of(path).values() if v.is_floating_point()} == {torch.float32}


def test_what_the_machine_cannot_do_is_refused(config):
    with pytest.raises(InputError, match="float16 needs a GPU"):
        fit(config.model_copy(update={"precision": "float16"}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_in_every_precision(config, precision):
    config = config.model_copy(update={"precision": precision})
    weights = weights_of(fit(config))
    assert all(torch.isfinite(v).all() for v in weights.values())
    assert moved(config)


def moved(config: TrainConfig) -> bool:
    """Whether a training has changed any weight that it began with."""
    torch.manual_seed(config.seed)
    start = new_network(config).named_parameters()
    state = torch.load(Path(config.out) / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return not all(torch.equal(state[f"model.{name}"], value) for name, value in start)


def test_steps_that_float16_skips_are_no_mistake_of_the_schedule(config, monkeypatch):
    """On a CPU, with the scaling of a GPU: its first scale is too large for the gradients of these networks."""
    scalers = []

    def scaled(connector):
        scalers.append(MixedPrecision("16-mixed", "cpu"))
        return scalers[-1]

    monkeypatch.setattr(fit_module, "_check_machine", lambda _: None)
    monkeypatch.setattr(_AcceleratorConnector, "_check_and_init_precision", scaled)
    config = config.model_copy(update={"precision": "float16"})
    fit(config)
    assert scalers[0].scaler.get_scale() < scalers[0].scaler._init_scale
    assert moved(config)


@pytest.mark.parametrize("target", ["foreground-boundary", "distances"])
def test_other_targets_are_judged_by_their_loss_and_named_in_the_weights(config, target):
    spec = load_checkpoint(fit(config.model_copy(update={"target": target, "loss": "dice", "ema": 0.0}))).spec
    assert spec.classes == TARGETS[target].classes
    assert "loss" in spec.card["scores"]
    assert "msa" not in spec.card["scores"]
    assert "calibration" not in spec.card


@pytest.mark.parametrize(("clip", "hint"), [(0.0, ", or a clip of 1$"), (1.0, "$")])
def test_a_training_that_diverges_is_stopped_and_told(config, clip, hint):
    with pytest.raises(IncompleteRunError, match=rf"the loss is nan after 2 steps.*learning_rate below 1e\+30{hint}"):
        fit(config.model_copy(update={"learning_rate": 1e30, "warmup": 0, "clip": clip, "ema": 0.0}))
    assert not (Path(config.out) / "unet-nano.safetensors").exists()


def test_a_finished_training_is_only_exported_again(config, monkeypatch):
    path = fit(config, pytest.fail)
    before = weights_of(path)
    path.unlink()

    def fail(*_):
        raise AssertionError("a crop was read")

    monkeypatch.setattr(CropDataset, "crop", fail)
    told = []
    after = weights_of(fit(config, told.append))
    assert told == [f"all {config.steps} steps were done before; the weights are only written again, from {config.out}"]
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
    with pytest.raises(MissingExtraError, match=rf"{module}.*pip install -c constraints.txt '\.\[train\]'"):
        fit(config)


def test_missing_data_are_told_before_anything_is_written(config):
    volume = config.volumes[0].model_copy(update={"raw": "nothing.h5"})
    with pytest.raises(InputError, match="does not exist") as error:
        fit(config.model_copy(update={"volumes": (volume,)}))
    assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


def test_training_starts_from_given_weights(config, tmp_path):
    first = fit(config)
    further = config.model_copy(update={"out": str(tmp_path / "further"), "init": str(first), "learning_rate": 1e-9})
    weights = fit(further)
    for key, value in weights_of(weights).items():
        if not key.startswith("out_conv"):  # its bias is calibrated in the export
            torch.testing.assert_close(value, weights_of(first)[key], rtol=0, atol=1e-4)
    cards = [load_checkpoint(path).spec.card for path in (first, weights)]
    assert "history" not in cards[0]
    assert cards[1]["history"] == f"{cards[0]['trained']}; then as trained"


def test_weights_of_another_network_are_no_start(config):
    with pytest.raises(
        InputError, match=r"vimunet-nano holds another network than model = unet-nano: \S+ has shape"
    ) as error:
        fit(config.model_copy(update={"init": "vimunet-nano"}))
    assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


def test_weights_of_another_function_with_the_same_shapes_are_a_start_that_is_told(config, tmp_path):
    """As those of the reference, which drops another token and is padded; nothing but the options tells."""
    options = {"embedding": 16, "depth": 2, "widths": (8, 8, 8, 8, 8), "stem_widths": (4, 4, 4, 4), "canvas": 64}
    other = {"class_token": "middle", "drop": "first", "pad_to_canvas": True}
    spec = ModelSpec("vimunet-nano", {**options, **other})
    save_checkpoint(tmp_path / "first.safetensors", build_model("vimunet-nano", **spec.options), spec)
    told = []
    for name, given in ({"same": other, "part": {"class_token": "middle", "pad_to_canvas": True}}).items():
        update = {"model": "vimunet-nano", "options": {**options, **given}, "steps": 1, "out": str(tmp_path / name)}
        update |= {"init": str(tmp_path / "first.safetensors")}
        fit(config.model_copy(update=update), lambda text, name=name: told.append((name, text)))
    assert [name for name, _ in told] == ["part"]
    assert "learned with drop = first and not class, so" in told[0][1]
    assert told[0][1].endswith("give --set options.drop=first")
    with pytest.raises(InputError, match=r"out_conv\.weight .*give weights of vimunet-nano .* target = distances$"):
        fit(config.model_copy(update=update | {"target": "distances", "out": str(tmp_path / "third")}))


def test_weights_that_are_not_there_are_told_by_the_key_that_names_them(config):
    with pytest.raises(InputError, match=r"^init = vimunet-nana, which .*did you mean 'vimunet-nano' or ") as error:
        fit(config.model_copy(update={"init": "vimunet-nana"}))
    assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


def test_training_starts_from_an_encoder_alone(config, tmp_path):
    """The layout of Segment Anything; what else it holds is not looked at, and the decoder is random."""
    options = {"embedding": 768, "depth": 4, "window": 2, "canvas": 64, "widths": (8, 8, 8, 8, 8)}
    update = {"model": "unetr-base", "options": options, "steps": 2, "learning_rate": 1e-9}
    torch.manual_seed(5)
    wanted = {k: v for k, v in build_model("unetr-base", **options).state_dict().items() if k.startswith("encoder.")}
    entries = {"image_" + k: v for k, v in wanted.items()} | {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    torch.save(entries, tmp_path / "sam.pth")
    found = weights_of(fit(config.model_copy(update=update | {"init": str(tmp_path / "sam.pth")})))
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
    entries["image_encoder.blocks.3.attn.rel_pos_w"] = torch.zeros(3, 64)
    torch.save(entries, tmp_path / "sam.pth")
    other = update | {"init": str(tmp_path / "sam.pth"), "out": str(tmp_path / "other")}
    with pytest.raises(InputError, match=r"blocks\.3\.attn\.rel_pos_w has shape \(3, 64\) and should have \(7, 64\)"):
        fit(config.model_copy(update=other))
    assert not (tmp_path / "other").exists()


def test_the_commit_of_a_project_around_the_environment_is_not_taken_for_that_of_the_package(tmp_path):
    """Of a user who works in a repository and has the environment in it, ignored."""
    installed = tmp_path / "venv" / "vimvol" / "export.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    (tmp_path / ".gitignore").write_text("venv\n")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e")
    for words in (("init", "-q"), ("add", ".gitignore"), ("commit", "-q", "-m", "theirs")):
        subprocess.run([*git, *words], check=True)
    assert commit(installed) == f"version {__version__}"
    subprocess.run([*git, "add", "-f", str(installed)], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(commit(installed))
