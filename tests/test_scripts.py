"""Every script outside the package starts, and says what it is for."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from vimvol.errors import VimvolError

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "pipelines") for path in (REPOSITORY / folder).glob("*.py"))
PROGRAM = """
import os, runpy, sys
from pathlib import Path
import numba, scipy.ndimage, torch, zarr  # what a script takes longest to load, paid once for all
folder, *scripts = map(Path, sys.argv[1:])
for script in scripts:
    child = os.fork()
    if child == 0:
        told = os.open(folder / script.name, os.O_WRONLY | os.O_CREAT)
        os.dup2(told, 1)
        os.dup2(told, 2)
        sys.argv, sys.path[0] = [str(script), "--help"], str(script.parent)
        runpy.run_path(str(script), run_name="__main__")
        sys.exit()
    print(script.name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Starts every script in a process of its own, and prints with which code it ended."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and words of every script that is asked for help."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    folder = tmp_path_factory.mktemp("told")
    command = [sys.executable, "-u", "-c", PROGRAM, folder, *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    codes = dict(line.split() for line in done.stdout.splitlines())
    return {name: (int(code), (folder / name).read_text(encoding="utf-8")) for name, code in codes.items()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_says_what_it_is_for(script: Path, started: dict[str, tuple[int, str]]) -> None:
    code, told = started[script.name]
    assert code == 0, told
    first = script.read_text(encoding="utf-8").split('"""')[1].split(".")[0]
    assert " ".join(first.split()) in " ".join(told.split())


@pytest.mark.parametrize(
    ("script", "others", "says"),
    [
        ("study_prediction", ("vimunet-nano", ["turned"]), "turned: no such choice; there are "),
        ("study_sections", (), "fib25_sample2_z000-149.h5 does not exist"),
    ],
)
def test_a_users_mistake_is_one_line(
    script: str, others: tuple[object, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "pipelines"))
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(REPOSITORY / "pipelines" / f"{script}.py"))["main"]
    with pytest.raises(VimvolError, match=says) as caught:
        main(tmp_path, *others)
    assert "\n" not in str(caught.value)
