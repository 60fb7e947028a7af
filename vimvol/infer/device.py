"""The device that a network runs on: from its configured name, and whether its memory ran out."""

from __future__ import annotations

import torch

from vimvol.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the device of a configured name.

    Raises
    ------
    InputError
        If the name is unknown or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = named_device(name)
    # of a driver that is too old, devices are counted, and none can be used
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    missing = (device.type == "cuda" and (device.index or 0) >= count) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(f"predict.device = {name!r} is not there on this machine; choose auto or cpu")
    return device


def named_device(name: str) -> torch.device:
    """Return the device of a name, whether or not this machine has it; it may be meant for other machines.

    Raises
    ------
    InputError
        If no prediction can run on what is named.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"predict.device = {name!r} is no device of PyTorch; choose auto, cpu, cuda or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"predict.device = {name!r} cannot run a prediction; choose auto, cpu, cuda or mps")
    return device


def slow_text(precision: str, device: torch.device) -> str:
    """Return that a precision is slow on the device, for want of instructions; empty where it is not, or unknown."""
    if precision != "bfloat16" or _has_bfloat16(device) is not False:
        return ""
    if device.type == "cuda":
        return "slow: this GPU imitates bfloat16; take float32 instead"
    return "slow: this processor imitates bfloat16, up to ten times slower than float32; take float32 instead"


def faster_text(precision: str, device: torch.device) -> str:
    """Return what precision would be faster on the device; empty where none is, or it is unknown."""
    if precision != "float32" or not _has_bfloat16(device):
        return ""
    return "predict.precision=bfloat16 predicts 1.5 to 3 times as fast here, with scores that are as good"


def _has_bfloat16(device: torch.device) -> bool | None:
    """Tell whether a device has instructions for bfloat16; none where that is unknown."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # older releases of PyTorch do not know what a processor has
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return None
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16"))


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory of the device or of the host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in ("DefaultCPUAllocator: can't allocate memory", "out of memory"))


def may_be_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is one that libraries on a GPU also raise where a handle or workspace got no memory."""
    texts = ("STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_SUPPORTED", "unable to find an engine")
    return any(text in str(error) for text in texts)


HARMLESS = (
    "no kernel image is available",
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "invalid device ordinal",
)
"""CUDA's errors that reject what was asked for, and after which a process goes on."""


def is_device_lost(error: Exception) -> bool:
    """Tell whether an error leaves the device of no use to this process: CUDA then fails every later call, too."""
    # releases of PyTorch before 2.8 raise RuntimeError
    of_cuda = isinstance(error, getattr(torch, "AcceleratorError", ())) or (
        isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    )
    memory = is_out_of_memory(error) or may_be_out_of_memory(error)
    return of_cuda and not memory and not any(text in str(error) for text in HARMLESS)
