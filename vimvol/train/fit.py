"""Train a network: from a configuration to a weights file."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn

from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError, MissingExtraError, OutputExistsError
from vimvol.models import load_checkpoint
from vimvol.models.registry import build_model

if TYPE_CHECKING:
    import lightning

CONFIG = "config.yaml"
FREE = {"card", "out", "root", "steps", "threads"}
"""What may differ between the beginning of a training and its continuation."""
NOISE = (
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*resuming from a checkpoint that ended before the epoch ended.*",
)
"""Warnings of Lightning that tell a user nothing here: volumes are in memory, a folder is resumed on purpose."""


def fit(config: TrainConfig) -> Path:
    """Train, validate, write checkpoints, and export the best weights.

    A folder that holds the checkpoint of a training with the same configuration is continued, from the last
    validation on, with the same result as without the interruption.

    Parameters
    ----------
    config
        What to train on what; ``config.out`` gets ``config.yaml``, ``last.ckpt``, ``best.ckpt``, ``logs/`` and the
        weights.

    Returns
    -------
    Path
        The exported weights, ``<out>/<model>.safetensors``.

    Raises
    ------
    InputError
        If data, network and configuration do not fit.
    OutputExistsError
        If the folder holds another training.
    MissingExtraError
        If Lightning or MONAI is not installed.
    """
    _need("lightning", "monai")
    from vimvol.train.dataset import check_patch, load_data
    from vimvol.train.export import LAST, export_best, read_checkpoint
    from vimvol.train.module import BoundaryModule, TrainingSource

    out = Path(config.out)
    resume = out / LAST if (out / LAST).exists() else None
    if resume is not None:
        _check_same(config, out)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    torch.manual_seed(config.seed)
    model = _initialised(config)
    check_patch(config.patch, int(getattr(model, "divisor", 1)))
    data = load_data(config)
    _save_config(config, out)

    if resume is None or read_checkpoint(resume)["global_step"] < config.steps:
        module = BoundaryModule(model, config, data)
        with _quiet(), _interruptible():
            trainer = _trainer(config, validates=bool(data.validate))
            trainer.fit(module, datamodule=TrainingSource(data, config), ckpt_path=resume, weights_only=True)
    return export_best(config)


def _initialised(config: TrainConfig) -> nn.Module:
    """Return the network to train: random, or with the weights that the configuration starts from."""
    model = build_model(config.model)
    if config.init is None:
        return model
    given = load_checkpoint(config.init).model.state_dict()
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    different = [name for name, shape in wanted.items() if name not in given or tuple(given[name].shape) != shape]
    if different or len(given) != len(wanted):
        raise InputError(
            f"init = {config.init} holds another network than model = {config.model}"
            f"{f' ({different[0]} does not fit)' if different else ''}; give weights of {config.model}"
        )
    model.load_state_dict(given)
    return model


def _trainer(config: TrainConfig, *, validates: bool) -> lightning.Trainer:
    import lightning
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
    from lightning.pytorch.loggers import CSVLogger

    from vimvol.train.export import BEST, LAST
    from vimvol.train.progress import ProgressLines

    # Saved in the validation, not behind it: a resumed Lightning runs the end of the epoch once more.
    common: dict[str, Any] = {
        "dirpath": config.out,
        "save_on_train_epoch_end": not validates,
        "enable_version_counter": False,
    }
    callbacks: list[Callback] = [ProgressLines(config.steps)]
    if validates:  # before the other, which saves what this one knows of the best score
        callbacks.append(ModelCheckpoint(filename=Path(BEST).stem, monitor="val/msa", mode="max", **common))
    callbacks.append(ModelCheckpoint(filename=Path(LAST).stem, **common))
    if sys.stderr.isatty():
        callbacks.append(RichProgressBar())
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        max_steps=config.steps,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validates else 0,
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        logger=CSVLogger(config.out, name="logs"),
        callbacks=callbacks,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and hints of Lightning that tell a user nothing here, and nothing else."""
    import logging

    talkers = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "accelerators")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        for talker in talkers:
            talker.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Undo what Lightning makes of Ctrl-C: it ends the process and leaves later ones ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"training needs {' and '.join(missing)}, not installed; pip install 'vimvol[train]'")


def _check_same(config: TrainConfig, out: Path) -> None:
    """Refuse to continue a training with another configuration."""
    if not (out / CONFIG).exists():
        raise OutputExistsError(
            f"{out} holds a checkpoint without {CONFIG}, so it may be of another training; give another folder as out"
        )
    before = load_config(TrainConfig, str(out / CONFIG)).model_dump(exclude=FREE)
    now = config.model_dump(exclude=FREE)
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        raise OutputExistsError(
            f"{out} holds a training with another {', '.join(changed)}; give those values of {out / CONFIG} again to "
            "continue it, or another folder as out"
        )


def _save_config(config: TrainConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
        (out / CONFIG).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); give a folder with write access as out") from None
