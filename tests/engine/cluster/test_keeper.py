"""What becomes of jobs that the batch system does not have any more."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import distributed
import pytest

from vimvol.engine.cluster import keeper
from vimvol.engine.cluster.jobs import CLASSES
from vimvol.engine.cluster.keeper import SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_QUESTIONS, SECONDS_LOST, TRIES, Keeper
from vimvol.engine.cluster.queue import LISTS, jobs_in_queue
from vimvol.errors import IncompleteRunError

ANSWERS = {
    "slurm": "4711\n4712\n",
    "pbs": "\nserver: \n                                        Req'd  Req'd   Elap\n"
    "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time\n"
    "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----\n"
    "4711.server     lab      short    dask-work*    --    1   4   16gb 01:00 Q   -- \n"
    "4712.server     lab      short    dask-work*   5012   1   4   16gb 01:00 R 00:01\n",
    "lsf": "JOBID      USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
    "4711       lab     PEND  short      login                   dask-work  Nov 25 10:00\n"
    "4712       lab     RUN   short      login       node1       dask-work  Nov 25 10:00\n",
    "sge": "job-ID  prior   name       user         state submit/start at     queue     slots ja-task-ID\n"
    "------------------------------------------------------------------------------------------\n"
    "   4711 0.55500 dask-worke lab          qw    11/25/2026 10:00:00               4        \n"
    "   4712 0.55500 dask-worke lab          r     11/25/2026 10:00:00 all.q@node1   4        \n",
}
"""What the command of each kind prints of a job that waits and one that runs."""


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, error: str = "", code: int = 0) -> None:
    """Put the command of a batch system into the path."""
    (folder / "out").write_text(text)
    (folder / "err").write_text(error)
    command = folder / LISTS[kind][0]
    command.write_text(f"#!/bin/sh\ncat {folder}/out\ncat {folder}/err >&2\nexit {code}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_jobs_that_wait_or_run_are_known(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path, monkeypatch, kind, ANSWERS[kind])
    assert jobs_in_queue(kind) == {"4711", "4712"}


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_no_answer_is_not_an_empty_queue(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path, monkeypatch, kind, "", "the server does not answer", code=1)
    assert jobs_in_queue(kind) is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert jobs_in_queue(kind) is None


def test_an_empty_queue_of_lsf_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path, monkeypatch, "lsf", "", "No unfinished job found\n", code=255)
    assert jobs_in_queue("lsf") == frozenset()


@dataclass
class Job:
    job_id: str
    status: object = distributed.Status.running

    async def close(self) -> None:
        pass


@dataclass
class Cluster:
    """What the keeper sees of a cluster of dask-jobqueue; submitting gives every job that is not there a number."""

    names: tuple[str, ...]
    workers: dict[str, Job] = field(default_factory=dict)
    scheduler_info: dict = field(default_factory=lambda: {"workers": {}})
    submitted: int = 0

    def __post_init__(self) -> None:
        self.worker_spec = {name: {} for name in self.names}
        self._submit()

    def _submit(self) -> None:
        for name in self.worker_spec.keys() - self.workers.keys():
            self.submitted += 1
            self.workers[name] = Job(str(100 + self.submitted))

    def sync(self, function, *args) -> None:
        with pytest.raises(StopIteration):
            function(*args).send(None)

    def __await__(self):
        self._submit()
        return iter(())

    def come(self, *names: str) -> None:
        self.scheduler_info["workers"] = {f"tcp://{name}": {"name": name} for name in names}


class Watched:
    """A keeper whose time goes on as the test says, and whose batch system has some of the jobs."""

    def __init__(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.queue = 1000.0, frozenset(job.job_id for job in cluster.workers.values())
        monkeypatch.setattr(keeper.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(keeper, "jobs_in_queue", lambda kind: self.queue)
        self.keeper = Keeper(cluster, "slurm")

    def look_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 2
            self.keeper()


LONG = SECONDS_LOST + SECONDS_BETWEEN_QUESTIONS + 10


def test_jobs_that_wait_are_waited_for_and_told_of(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(("a", "b"))
    watched = Watched(cluster, monkeypatch)
    with caplog.at_level(logging.WARNING):
        watched.look_for(3 * SECONDS_BETWEEN_LINES + 10)
    assert caplog.messages == [
        f"no worker for {minutes} min: jobs of slurm asked for: 2, 2 in the queue by squeue" for minutes in (1, 2, 3)
    ]
    assert cluster.submitted == 2


def test_a_batch_system_that_does_not_answer_ends_nothing(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(("a", "b"))
    watched = Watched(cluster, monkeypatch)
    watched.queue = None
    with caplog.at_level(logging.WARNING):
        watched.look_for(SECONDS_BETWEEN_LINES + 10)
    assert caplog.messages == ["no worker for 1 min: jobs of slurm asked for: 2, squeue does not answer"]
    assert cluster.submitted == 2


def test_a_run_none_of_whose_jobs_is_left_ends(monkeypatch) -> None:
    watched = Watched(Cluster(("a", "b")), monkeypatch)
    watched.look_for(LONG)
    watched.queue = frozenset()
    with pytest.raises(IncompleteRunError, match=r"squeue knows no job of slurm of this run any more \(2 asked for\)"):
        watched.look_for(LONG)


def test_a_run_ends_when_jobs_that_were_submitted_again_are_cancelled(monkeypatch) -> None:
    cluster = Cluster(("a", "b"))
    watched = Watched(cluster, monkeypatch)
    cluster.come("a", "b")
    watched.look_for(10)
    cluster.come()
    watched.look_for(SECONDS_LOST + 4)
    assert cluster.submitted == 4
    watched.queue = frozenset(job.job_id for job in cluster.workers.values())
    watched.look_for(LONG)
    watched.queue = frozenset()
    with pytest.raises(IncompleteRunError):
        watched.look_for(LONG)
    assert cluster.submitted == 4


def test_a_job_that_never_begins_beside_others_is_given_up_in_the_end(monkeypatch, caplog) -> None:
    cluster = Cluster(("a", "b"))
    watched = Watched(cluster, monkeypatch)
    watched.queue = frozenset()
    cluster.come("a")
    with caplog.at_level(logging.WARNING):
        watched.look_for((TRIES + 2) * LONG)
    assert cluster.submitted == 2 + TRIES
    assert caplog.messages[-1] == f"job b left the queue {TRIES + 1} times before a worker came, and is given up"
    assert len(caplog.messages) == TRIES + 1


def test_a_job_that_is_given_up_is_cancelled_and_not_submitted_again(monkeypatch) -> None:
    cluster = Cluster(("cpu", "gpu-0", "gpu-1"))
    for name, spec in cluster.worker_spec.items():
        spec["options"] = {"worker_extra_args": name[:3]}
    watched = Watched(cluster, monkeypatch)
    cluster.come("cpu", "gpu-0")
    watched.look_for(10)
    watched.keeper.give_up("gpu-0")
    watched.keeper.give_up("cpu-3")  # one of several processes of a job
    assert set(cluster.worker_spec) == {"cpu", "gpu-1"} == set(cluster.workers)
    cluster.come("cpu")
    watched.look_for(LONG)
    assert cluster.submitted == 3
    assert watched.keeper.expects("gpu-0")
    watched.keeper.give_up("gpu-1")
    assert not watched.keeper.expects("gpu-0")
    assert not watched.keeper.expects("gpu-1")
