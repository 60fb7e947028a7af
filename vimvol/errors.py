"""Errors of vimvol.

Every message is one line that gives the offending value, the consequence and what to do next. The
command line prints the message without a traceback and leaves with the error's ``exit_code``.
"""

from __future__ import annotations


class VimvolError(Exception):
    """Base of every error that vimvol raises on purpose."""

    exit_code: int = 1


class InputError(VimvolError):
    """The user gave something that cannot be used, and can mend it: a path, a dataset, a shape, a value."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration has an unknown key or a value out of range."""


class CheckpointError(InputError):
    """A weights file is damaged or belongs to another architecture."""


class OutputExistsError(InputError):
    """The output is there already, and nobody asked to overwrite or continue it."""


class OutputBusyError(InputError):
    """Another run writes the output."""


class MissingExtraError(InputError):
    """An optional dependency is not installed; where an extra has it, the message ends with `install_text`."""


def install_text(extra: str) -> str:
    """Return how an extra is installed: from the sources, as vimvol is in no index of packages.

    As README installs it: with the versions that are tested, unless the PyTorch is one that was chosen for a GPU.
    """
    where = "in the folder of vimvol's sources"
    if extra in ("cuda", "gpus"):
        return f"run pip install '.[{extra}]' {where}"
    return (
        f"run pip install -c constraints.txt '.[{extra}]' {where}, without -c constraints.txt if PyTorch was installed "
        "for a GPU"
    )


class StorageError(VimvolError):
    """Reading or writing failed: a full disk, missing rights, a lost connection."""


class DeniedError(StorageError):
    """The right to read or write something is missing."""


class DiskFullError(StorageError):
    """No space is left where something is written; no other block would fare better."""


class IncompleteRunError(VimvolError):
    """Blocks failed for good, or the run was interrupted; finished blocks are kept and a second run goes on."""


class DeviceLostError(IncompleteRunError):
    """The device failed in a way that leaves nothing to be computed on it by this process; a new one may be able to.

    Parameters
    ----------
    cause
        What the device's library says, on one line.
    """

    def __str__(self) -> str:
        return (
            f"the device failed ({self.args[0]}), and this process can compute nothing on it any more; finished blocks "
            "are kept, run the same command again to go on"
        )


class OutputLostError(IncompleteRunError):
    """The run does not hold its output any more: another took it over, or the run has ended."""
