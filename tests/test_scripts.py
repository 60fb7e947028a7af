"""Every script outside the package starts, and says what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "pipelines") for path in (REPOSITORY / folder).glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_says_what_it_is_for(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first = script.read_text(encoding="utf-8").split('"""')[1].split(".")[0]
    assert " ".join(first.split()) in " ".join(done.stdout.split())
