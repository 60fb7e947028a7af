"""Settings for small volumes, the command line in this process, and what a test asks of an output."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from vimvol.cli import main
from vimvol.config import SegmentConfig, load_config
from vimvol.models import ModelSpec, build_model, save_checkpoint

SMALL = {
    "output.chunk": [2, 32, 48],
    "output.shard": [2, 64, 48],
    "predict.tile": [64, 64],
    "predict.halo": [16, 16],
    "fragments.tile": [1, 64, 64],
    "fragments.halo": [0, 16, 16],
    "output.levels": 3,
    "run.workers": 0,
}
"""Blocks, tiles and shards small enough that a volume of 128 voxels has several of each, which do not line up."""


def small_config(**changes: object) -> SegmentConfig:
    return load_config(SegmentConfig, None, {**SMALL, **{key.replace("__", "."): v for key, v in changes.items()}})


def random_network(path: Path, gain: float = 1, **spec: Any) -> str:
    """Save a small network of random weights, the same for the same spec; a ``gain`` drives outputs from one half."""
    options = {"features": 4, "depth": 2}
    torch.manual_seed(1)
    model = build_model("unet-nano", out_channels=spec.get("out_channels", 1), **options)
    with torch.no_grad():
        model.out_conv.weight.mul_(gain)
    save_checkpoint(path, model, ModelSpec("unet-nano", options, **spec))
    return str(path)


def digest(out: str | Path) -> dict[str, str]:
    """Digest of the decoded content of every image and label array of an output, and of its metadata."""
    root = zarr.open_group(str(out), mode="r")
    labels = zarr.open_group(str(out), mode="r", path="labels")
    found = {"/": json.dumps(root.attrs.asdict(), sort_keys=True)}
    for prefix, nodes in (("", root.members()), ("labels/", labels.members(max_depth=None))):
        for path, node in nodes:
            if isinstance(node, zarr.Array):
                content = hashlib.sha256(np.ascontiguousarray(node[:]).tobytes()).hexdigest()
                found[prefix + path] = f"{content} {node.shape}"
            elif path != "vimvol":
                found[prefix + path] = json.dumps(node.attrs.asdict(), sort_keys=True)
    return found


@contextlib.contextmanager
def disk_of(folder: Path, output: Path, share: float) -> Iterator[Path]:
    """Mount a file system that holds this share of an output; skip the test where that is not allowed."""
    folder.mkdir()
    size = sum(path.stat().st_blocks * 512 for path in output.rglob("*") if path.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={round(share * size)}", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path, content: Path | None = None) -> Iterator[Path]:
    """Yield ``below`` in a folder that nobody can write, a copy of ``content``; skip the test where that cannot be had.

    Root writes wherever a file system can be written, so for root it is one that cannot be.
    """
    folder.mkdir()
    rooted = not os.geteuid()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    if rooted and subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system that is read-only needs the right to mount")
    if content is not None:
        shutil.copytree(content, folder / "below")
    places = [folder, *folder.rglob("*")]
    try:
        if rooted:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        else:
            for place in places:
                place.chmod(0o555 if place.is_dir() else 0o444)
        yield folder / "below"
    finally:
        if rooted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        else:
            for place in places:
                place.chmod(0o755)


def vimvol(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["vimvol", *map(str, args)])
    try:
        main()
        code = 0
    except SystemExit as leave:
        code = int(leave.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def mistake(err: str) -> str:
    """Return the one line of an error; before it there may be what was being done."""
    *before, last = err.splitlines()
    assert all(re.match("(opening|input:|boundaries:|mask:|workers:) ", line) for line in before), err
    assert last.startswith("error: ")
    return last


def without_rights(commands: Sequence[Sequence[object]], folder: Path) -> list[tuple[int, str]]:
    """Run commands in a process that may read what the rights of files say, which root need not; skip if it cannot.

    Returns
    -------
    list of tuple
        Exit code and standard error of each.
    """
    script = "import contextlib, io, json, sys\nfrom vimvol.cli import main\nfound = []\n"
    script += "for words in json.loads(sys.argv[1]):\n"
    script += " sys.argv, told, code = ['vimvol', *words], io.StringIO(), 0\n"
    script += " with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):\n"
    script += "  try: main()\n  except SystemExit as leave: code = leave.code or 0\n"
    script += " found.append((code, told.getvalue()))\nprint(json.dumps(found))\n"
    drop = []
    if not os.geteuid():
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, unless setpriv takes that right away")
        drop = ["setpriv", *(f"--{kind}=-dac_override,-dac_read_search" for kind in ("bounding-set", "inh-caps"))]
    words = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run(
        [*drop, sys.executable, "-c", script, words], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(code, err) for code, err in json.loads(done.stdout.splitlines()[-1])]


def settings(**more: object) -> list[str]:
    return [f"--set={key}={json.dumps(value)}" for key, value in {**SMALL, **more}.items()]


def last_run(out: Path) -> dict[str, Any]:
    """Return what an output has recorded of its latest run."""
    return json.loads((out / "vimvol" / "run.json").read_text())["runs"][-1]


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process is alive."""
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Notes:
    """Keeps what a run tells that belongs to no stage."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str):
        return lambda *_: None
