"""Which process this is, and whether another one is there: by what its machine, container and user are."""

from __future__ import annotations

import getpass
import os
import platform
import uuid
from pathlib import Path


def user_name() -> str:
    """Return the name of the user, or the number of one without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return str(os.getuid())


def machine_id() -> str:
    """Return what tells machines apart by which processes are seen: another container sees others."""
    parts = [platform.node()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:
            parts.append(f"{uuid.getnode():x}")
    return "/".join(parts)


def born(pid: int) -> str | None:
    """Return when a process began; none where there is none, or only what its parent has to take notice of."""
    try:
        # After the name, which may hold anything, in parentheses: the state first, the time of birth as number 20.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _signalled(pid)
    except OSError:
        return _signalled(pid)
    return None if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str | None:
    """Return an empty text for a process that there is, where the system tells no more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
