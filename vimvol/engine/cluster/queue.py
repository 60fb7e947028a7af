"""What a batch system says of the jobs of this user."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Mapping

LISTS: Mapping[str, tuple[str, ...]] = {
    "slurm": ("squeue", "--noheader", "--format=%A", "--user={user}"),
    "pbs": ("qstat", "-u", "{user}"),
    "lsf": ("bjobs",),
    "sge": ("qstat", "-u", "{user}"),
}
"""Command that lists the jobs that wait or run, each on a line that begins with its number."""

SECONDS_FOR_ANSWER = 10.0


def jobs_in_queue(kind: str) -> frozenset[str] | None:
    """Return the numbers of this user's jobs that wait or run; none if the batch system does not answer.

    Parameters
    ----------
    kind
        A key of `LISTS`.
    """
    try:
        # who submits; the environment may name somebody else, whose jobs are others
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None
    command = [part.format(user=user) for part in LISTS[kind]]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS_FOR_ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # LSF tells by an error that there is no job.
    if done.returncode and "No unfinished job found" not in done.stderr:
        return None
    return frozenset(re.findall(r"^\s*(\d+)", done.stdout, re.MULTILINE))
