"""Which device predicts, decided once for a run: what decides about bytes stands in the key of the stage."""

from __future__ import annotations

from vimvol.config import SegmentConfig
from vimvol.config.cluster import ClusterConfig
from vimvol.engine.cluster.local import available_cores
from vimvol.errors import InputError
from vimvol.infer.device import faster_text, named_device, resolve_device, slow_text
from vimvol.preflight.announce import Tell


def settle_device(config: SegmentConfig, cluster: ClusterConfig, tell: Tell) -> SegmentConfig:
    """Return the configuration with the device that ``auto`` means, as far as it is known before workers are there.

    A GPU rounds otherwise than a CPU, so a run that was begun on one must not go on on the other unnoticed. Several
    workers of this machine predict on its cores: they would load one network each onto the same GPU.

    Parameters
    ----------
    config
        The configuration.
    cluster
        Where its blocks are computed.
    tell
        Told of a GPU that is not used, and of a precision that the processor is slow in.

    Raises
    ------
    InputError
        If this machine is to predict on a device that it does not have, or several of its workers are to share a GPU;
        or if the device is one that would be another in every worker.
    """
    predict = config.predict
    if predict.boundaries is not None:
        return config
    device = predict.device
    _refuse_number(device, cluster.kind)
    if device == "auto" and (cluster.kind == "cuda" or getattr(cluster, "gpu", None) is not None):
        device = "cuda"  # no other workers are given a block to predict
    elif cluster.kind == "local":
        workers = available_cores() if config.run.workers is None else config.run.workers
        device = _of_this_machine(device, workers, tell)
        if text := slow_text(predict.precision, resolve_device("cpu" if device == "auto" else device)):
            tell(text)
    if device == predict.device:
        return config
    return config.model_copy(update={"predict": predict.model_copy(update={"device": device})})


def quicker_text(config: SegmentConfig, cluster: ClusterConfig) -> str:
    """Return which precision would predict faster on the workers of this machine; empty where none would.

    Parameters
    ----------
    config
        The configuration, of a device that is settled.
    cluster
        Where its blocks are computed; what the processors of other machines have is not known.
    """
    predict = config.predict
    if predict.boundaries is not None or cluster.kind not in ("local", "cuda"):
        return ""
    return faster_text(predict.precision, resolve_device("cpu" if predict.device == "auto" else predict.device))


def _refuse_number(wanted: str, kind: str) -> None:
    """Refuse the number of a GPU on clusters whose workers each count from their own, or have one only.

    Raises
    ------
    InputError
        Then.
    """
    if kind in ("local", "address") or wanted == "auto" or named_device(wanted).index is None:
        return
    number = named_device(wanted).index
    which = f", and devices: [{number}] in a file of kind cuda for that GPU alone" if kind == "cuda" else ""
    raise InputError(
        f"predict.device = {wanted!r} would be another GPU, or none, in each worker of cluster {kind}; give cuda{which}"
    )


def _of_this_machine(wanted: str, workers: int, tell: Tell) -> str:
    """Return ``auto`` where it means the CPU, and else the device."""
    found = resolve_device(wanted)
    if found.type == "cpu":
        return wanted
    if workers <= 1:
        return found.type if wanted == "auto" else wanted
    if wanted != "auto":
        raise InputError(
            f"predict.device = {wanted} with {workers} workers would load {workers} networks onto one GPU; give "
            "--cluster cuda, which has one process a GPU, or --workers 1"
        )
    tell("a GPU is there and not used, since several workers would share it; give --cluster cuda, or --workers 1")
    return wanted
