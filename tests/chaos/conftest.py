"""One folder of faults and one cluster of processes for all tests that disturb runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import Cluster, Faults


@pytest.fixture(scope="session")
def folder_of_faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults") / "faults")


@pytest.fixture
def faults(folder_of_faults: Faults) -> Iterator[Faults]:
    """The folder, empty at the beginning; at the end every fault that was put there has struck."""
    folder_of_faults.clear()
    yield folder_of_faults
    assert not folder_of_faults.left()


@pytest.fixture(scope="session")
def processes(folder_of_faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # The clock of the worker that starts first is a day slow.
    (folder_of_faults.folder / "clock").write_text("-86400")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), folder_of_faults)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(processes: Cluster) -> Cluster:
    """A scheduler and two workers, started anew where a test before killed them."""
    if not processes.running():
        processes.start()
    return processes


@pytest.fixture
def volume(sample: Path) -> str:
    return f"{sample}:raw"
