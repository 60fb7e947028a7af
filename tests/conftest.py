"""What several tests share."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import zarr

from tests.support import small_config, vimvol
from vimvol.commands.segment import segment_volume
from vimvol.sample import SampleSpec, generate
from vimvol.stages import solve

# Time limits of single examples say more about the machine than about the code.
hypothesis.settings.register_profile("vimvol", deadline=None)
hypothesis.settings.load_profile("vimvol")
# Small networks run many times slower on several threads when the cores are busy.
torch.set_num_threads(1)

MEMORY, ROOM = Path("/dev/shm"), 4 << 30
"""A file system in memory, where there is one, and the bytes that have to be free there."""


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, and put folders of tests into memory.

    Tests compare runs to the bit, and a GPU does not repeat itself; only those with the mark ``gpu`` are meant for one.
    Runs flush every block, and tests would wait for the disk half of the time.
    """
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Let the processes of ``-n`` take file by file in their order: what a file's tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # by number of tests, the slowest files would come last
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data that lies beside a developer's checkout; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference data beside the checkout ({folder.name}/ is missing)")
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic volume of 4 x 128 x 120 voxels as a zarr v2 array with its ground truth beside it."""
    folder = tmp_path_factory.mktemp("sample") / "sample.zarr"
    raw, labels = generate(SampleSpec(shape=(4, 128, 120)))
    group = zarr.create_group(str(folder), zarr_format=2)
    for name, data in (("raw", raw), ("labels", labels)):
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, chunks=(2, 64, 64))
        array[:] = data
        array.attrs["resolution"] = [50.0, 4.6, 4.6]
    return folder


@pytest.fixture(scope="session")
def reference(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one uninterrupted run in this process; not to be changed."""
    out = tmp_path_factory.mktemp("reference") / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config())
    return out


@pytest.fixture(scope="module")
def every_level() -> Iterator[None]:
    """Have all levels of a graph solved that are asked for, however few edges their cells hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "LEAST_EDGES", 0)
        yield


@pytest.fixture(scope="session")
def ready(reference: Path) -> dict[str, str]:
    """Settings by which boundaries are those of the reference: where it is not about them, no network has to run."""
    return {"predict__boundaries": f"{reference}:0"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: words to exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *args: vimvol(capsys, monkeypatch, *args)
