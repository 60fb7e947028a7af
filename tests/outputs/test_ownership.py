"""A run writes only while it holds its output."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_config
from vimvol.commands.segment import segment_volume
from vimvol.engine.blocks import compute_blocks
from vimvol.engine.cluster import open_cluster
from vimvol.engine.lock import NAME, Holder
from vimvol.errors import OutputLostError
from vimvol.geometry import Block
from vimvol.io.arrays import create_array, read_box, write_box
from vimvol.io.objects import open_objects
from vimvol.io.tables import read_table, write_table
from vimvol.outputs import output
from vimvol.outputs.manifest import read_manifest, write_manifest
from vimvol.outputs.ownership import guard_of, owned
from vimvol.report.progress import silent

WHOLE = Block.whole((4, 4, 4))


@dataclass(frozen=True)
class Late:
    """Writes an array or a table, but not before it is told to."""

    out: str
    what: str
    value: int

    def __call__(self, block: Block) -> dict:
        Path(self.out, "began").touch()
        while not Path(self.out, "go").exists():
            time.sleep(0.05)
        data = np.full(block.shape, self.value, np.uint8)
        if self.what == "array":
            write_box(f"{self.out}/a", block, data)
        else:
            write_table(f"{self.out}/t", "t", {"data": data})
        return {}


def stored(out: str, what: str) -> int:
    data = read_box(f"{out}/a", WHOLE) if what == "array" else read_table(f"{out}/t", "t")["data"]
    return int(data[0, 0, 0])


@pytest.mark.parametrize("what", ["array", "table"])
def test_a_worker_does_not_write_for_a_run_that_is_gone(tmp_path: Path, what: str) -> None:
    """The block of a run that ended goes on in its worker while the next run writes other data."""
    out = str(tmp_path / "out")
    create_array(f"{out}/a", (4, 4, 4), "uint8", chunk=(4, 4, 4))
    with open_cluster("local", 1) as pool:
        with owned(out) as lock:
            pool.submit(compute_blocks, guard_of(lock)(Late(out, what, 1)), (WHOLE,))
            while not Path(out, "began").exists():
                time.sleep(0.05)
        Path(out, "go").touch()
        with owned(out) as lock:
            guard_of(lock)(Late(out, what, 2))(WHOLE)
            (outcome,) = pool.next_done()[1]
            assert isinstance(outcome.error, OutputLostError)
            assert stored(out, what) == 2


def test_a_run_that_is_killed_in_the_middle_of_its_first_write_goes_on(tmp_path: Path) -> None:
    """A draft of the manifest lies beside a lock whose process is gone."""
    out = tmp_path / "out.zarr"
    program = (
        "import os, pathlib, signal; from vimvol.outputs.manifest import write_manifest;"
        "from vimvol.outputs.ownership import owned; out = os.environ['OUT'];"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "owned(out).__enter__(); write_manifest(out, {})"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "OUT": str(out)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(path.name.startswith(".run.json.") for path in (out / "vimvol").iterdir())
    with owned(str(out)):
        assert read_manifest(str(out)) is None
        write_manifest(str(out), {"keys": {}})
    assert read_manifest(str(out)) == {"keys": {}}


def content(out: Path) -> dict[str, str]:
    """Digest of every file of an output but those by which a client keeps its books."""
    books = ("ledger", "run.json", NAME)
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not any(book in str(path.relative_to(out)) for book in books)
    }


@pytest.mark.parametrize("stage", ["predict", "fragments", "graph", "write"])
def test_no_stage_writes_once_another_run_took_the_output_over(sample, tmp_path: Path, monkeypatch, stage: str) -> None:
    """Another run takes over in the middle of a stage, and the first has not noticed it by its heartbeat."""
    out, progress, before = tmp_path / "out.zarr", silent(), {}

    def begin(name: str, *_: object) -> None:
        if name == stage:
            other = json.dumps(asdict(replace(Holder.this_process(), machine="another"))).encode()
            open_objects(str(out / "vimvol")).put(NAME, other)
            before.update(content(out))

    monkeypatch.setattr(progress, "stage", begin)
    with pytest.raises(OutputLostError, match=r"does not hold .* any more"):
        segment_volume(f"{sample}:raw", str(out), small_config(), progress=progress)
    assert content(out) == before


def test_a_finished_output_holds_no_drafts_of_killed_processes(sample, tmp_path: Path) -> None:
    out, progress = tmp_path / "out.zarr", silent()
    foreign = out / "labels" / "corrected" / f"0.{'a' * 32}.partial"
    drafts = [
        out / f"zarr.{'0' * 32}.partial",
        out / "0" / "c" / "0" / f"1.{'1' * 32}.partial",
        out / "labels" / "segmentation" / "1" / f"zarr.{'2' * 32}.partial",
        out / "vimvol" / "edges" / f"0-4_0-128.{'3' * 32}.partial",
        out / "vimvol" / "ledger" / "graph" / f".x.records.{'4' * 32}",
    ]

    class Killing:
        """Leaves drafts in the middle of the run."""

        def stage(self, name: str, *_: object) -> None:
            if name == "write":
                for path in (foreign, *drafts):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"half")

        def __getattr__(self, name: str) -> object:
            return getattr(progress, name)

    segment_volume(f"{sample}:raw", str(out), small_config(), progress=Killing())
    assert not [path for path in drafts if path.exists()]
    assert foreign.exists()
    assert list(out.rglob("*.partial")) == [foreign]


def test_metadata_are_flushed_before_the_arrays_count_as_created(sample, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out.zarr"
    flushed, flush, seen = set(), os.fsync, []

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    def write(where: str, manifest: dict) -> None:
        if manifest["created"] and not seen:
            nodes = list(out.rglob("zarr.json"))
            seen.extend(nodes)
            places = {place for node in nodes for place in (node, node.parent, node.parent.parent)}
            assert places <= flushed
        write_manifest(where, manifest)

    write_manifest = output.write_manifest
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(output, "write_manifest", write)
    segment_volume(f"{sample}:raw", str(out), small_config())
    assert len(seen) > 5
