"""Train a network: from a configuration to a weights file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml

from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError, MissingExtraError, OutputExistsError, install_text
from vimvol.io.storage import local_path
from vimvol.models.memory import kept_memory
from vimvol.train.start import initialised, other_function

if TYPE_CHECKING:
    import lightning

    from vimvol.train.callbacks import StopRequest
    from vimvol.train.module import BoundaryModule

CONFIG = "config.yaml"
FREE = {
    "card", "devices", "logger", "nodes", "out", "pictures", "root", "save_minutes", "steps", "threads", "workers"
}  # fmt: skip
"""What may differ between the beginning of a training and its continuation."""
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
NOISE = (
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*resuming from a checkpoint that ended before the epoch ended.*",
    r".*The `srun` command is available on your system but is not used.*",
    r".*Found \d+ module\(s\) in eval mode.*",
    r".*multi-threaded, use of fork\(\) may lead to deadlocks.*",
)
"""Warnings of Lightning that tell a user nothing here: volumes are in memory, a folder is resumed on purpose, ..."""
SKIPPED = r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`.*"
"""What PyTorch says of the first steps in float16: they find how far gradients may be scaled up, and are skipped."""


def fit(config: TrainConfig, tell: Callable[[str], object] | None = None) -> Path:
    """Train, validate, write checkpoints, and export the best weights.

    A folder that holds the checkpoint of a training with the same configuration is continued from the step that it
    has reached, with the same result as without the interruption; on a GPU, whose kernels add in no fixed order, up
    to what two uninterrupted trainings differ by. SIGINT and SIGTERM save that step first.

    With several devices, every process of the training returns from here; only the first writes the weights.

    Parameters
    ----------
    config
        What to train on what; ``config.out`` gets ``config.yaml``, ``last.ckpt``, ``best.ckpt``, ``logs/``,
        ``pictures/`` and the weights.
    tell
        Told, by the first process, of synthetic volumes that are drawn, where nothing is left to train, and where
        ``config.init`` was trained as another function.

    Returns
    -------
    Path
        The exported weights, ``<out>/<model>.safetensors``.

    Raises
    ------
    InputError
        If data, network, machine and configuration do not fit.
    OutputExistsError
        If the folder holds another training.
    MissingExtraError
        If Lightning, MONAI or a wanted logger is not installed.
    """
    _need("lightning", "monai", *(["tensorboard"] if config.logger == "tensorboard" else []))
    from vimvol.train.export import LAST, export_best, exported, read_checkpoint

    config = config.model_copy(update={"out": str(local_path(config.out))})
    out = Path(config.out)
    resume = out / LAST if (out / LAST).exists() else None
    if resume is not None:
        _check_same(config, out)
    _check_machine(config)
    workers, threads = share_cores(config)
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    model = initialised(config)  # before Lightning is loaded, which takes seconds
    from vimvol.train.callbacks import Stopping, StopRequest
    from vimvol.train.dataset import check_patch
    from vimvol.train.loaders import TrainingSource
    from vimvol.train.module import BoundaryModule
    from vimvol.train.sources import load_data

    check_patch(config.patch, int(getattr(model, "divisor", 1)))
    ended = resume is not None and read_checkpoint(resume)["global_step"] >= config.steps
    told = tell if tell is not None and is_first() else lambda _: None
    if ended:  # volumes that are drawn take a minute, and are not needed to export weights again
        told(f"all {config.steps} steps were done before; the weights are only written again, from {out}")
    elif resume is None and (text := other_function(config)):
        told(text)
    if config.drawn and not ended:
        told(f"drawing synthetic volumes ({config.drawn.volumes}), a few seconds each")
    data = load_data(config.model_copy(update={"drawn": None}) if ended else config)
    if is_first():
        _save_config(config, out)

    if not ended:
        module = BoundaryModule(model, config, data)
        request = StopRequest()
        keeping = contextlib.nullcontext() if torch.cuda.is_available() else kept_memory()
        with request.listening(), _quiet(config), _interruptible(), keeping, contextlib.suppress(Stopping):
            trainer = _trainer(config, module, request)
            source = TrainingSource(data, config, workers)
            trainer.fit(module, datamodule=source, ckpt_path=resume, weights_only=True)
    return export_best(config) if is_first() else exported(config)


def share_cores(config: TrainConfig) -> tuple[int, int]:
    """Divide the cores of this machine among its devices, and those of a device between crops and training.

    Returns
    -------
    tuple
        Processes that cut crops, and threads of PyTorch.
    """
    cores = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    mine = max(1, cores // config.devices)
    if torch.cuda.is_available():
        workers = min(8, mine - 1) if config.workers is None else config.workers
        return workers, config.threads or max(1, mine - workers)
    threads = config.threads or mine
    # One process keeps up with a network on a CPU; it takes little of a core that the training may have, too.
    workers = int(mine > 1) if config.workers is None else config.workers
    return workers, threads


def is_first() -> bool:
    """Return whether this process is the only one of a training, or the first of several."""
    from lightning.fabric.utilities.rank_zero import _get_rank

    return not _get_rank()


def _trainer(config: TrainConfig, module: BoundaryModule, request: StopRequest) -> lightning.Trainer:
    import lightning
    from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
    from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

    from vimvol.train.callbacks import Pictures, SaveBetween
    from vimvol.train.export import BEST, LAST
    from vimvol.train.progress import ProgressLines

    validates = bool(module.names)
    score, more_is_better = module.judged_by
    mode = "max" if more_is_better else "min"
    # Saved in the validation, not behind it: a resumed Lightning runs the end of the epoch once more.
    common: dict[str, Any] = {
        "dirpath": config.out,
        "save_on_train_epoch_end": not validates,
        "enable_version_counter": False,
    }
    callbacks: list[Callback] = [ProgressLines(config.steps), SaveBetween(config.out, config.save_minutes, request)]
    if validates:
        if config.pictures:
            callbacks.append(Pictures(Path(config.out) / "pictures", config.pictures))
        if config.patience:
            callbacks.append(EarlyStopping(score, patience=config.patience, mode=mode))
        # before the other, which saves what this one knows of the best score
        callbacks.append(ModelCheckpoint(filename=Path(BEST).stem, monitor=score, mode=mode, **common))
    callbacks.append(ModelCheckpoint(filename=Path(LAST).stem, **common))
    if sys.stderr.isatty():
        callbacks.append(RichProgressBar())
    loggers: list[Logger] = [CSVLogger(config.out, name="logs")]
    if config.logger == "tensorboard":
        loggers.append(TensorBoardLogger(config.out, name="tensorboard"))
    # Weights without a gradient (the reference's unused classifier) make plain DDP wait for ever.
    several = config.devices * config.nodes > 1
    return lightning.Trainer(
        accelerator="auto",
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        use_distributed_sampler=False,
        precision=PRECISIONS[config.precision],
        max_steps=config.steps,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validates else 0,
        gradient_clip_val=config.clip or None,
        log_every_n_steps=1,
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )


def _check_machine(config: TrainConfig) -> None:
    """Refuse what this machine cannot do."""
    if config.precision == "float16" and not torch.cuda.is_available():
        raise InputError("precision = float16 needs a GPU, and there is none; take bfloat16 or float32")
    found = torch.cuda.device_count()
    if 0 < found < config.devices:
        raise InputError(f"devices = {config.devices} exceeds the {found} GPUs of this machine; give at most that")


@contextmanager
def _quiet(config: TrainConfig) -> Iterator[None]:
    """Silence warnings and hints of Lightning that tell a user nothing here, and nothing else."""
    import logging

    connectors = [f"trainer.connectors.{name}_connector" for name in ("checkpoint", "signal")]
    talkers = [
        logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "accelerators", *connectors)
    ]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in (*NOISE, SKIPPED) if config.precision == "float16" else NOISE:
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
    """Undo what Lightning makes of a second Ctrl-C: it ends the process."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None


def _need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"training needs {' and '.join(missing)}, not installed; {install_text('train')}")


def _check_same(config: TrainConfig, out: Path) -> None:
    """Refuse to continue a training with another configuration."""
    if not (out / CONFIG).exists():
        raise OutputExistsError(
            f"{out} holds a checkpoint without {CONFIG}, so it may be of another training; give another folder as out"
        )
    saved, unnamed = load_config(TrainConfig, str(out / CONFIG)), ""
    if saved.drawn is not None and "looks" not in saved.drawn.model_fields_set:  # of a version that had one look
        saved = saved.model_copy(update={"drawn": saved.drawn.model_copy(update={"looks": False})})
        unnamed = ", with drawn.looks=false, which it does not name,"
    before, now = saved.model_dump(exclude=FREE), config.model_dump(exclude=FREE)
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        raise OutputExistsError(
            f"{out} holds a training with another {', '.join(changed)}; give those values of {out / CONFIG} again"
            f"{unnamed if 'drawn' in changed else ''} to continue it, or another folder as out"
        )


def _save_config(config: TrainConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
        draft = out / f".{CONFIG}"
        draft.write_text(text, encoding="utf-8")
        draft.replace(out / CONFIG)  # in one step: without it, no checkpoint here is continued
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); give a folder with write access as out") from None
