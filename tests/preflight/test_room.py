"""Workers without room for a block are refused before any is started."""

import re
from pathlib import Path

import distributed
import pytest

from tests.support import small_config
from vimvol.commands.segment import segment_volume
from vimvol.config.cluster import AddressCluster, JobsCluster, KubernetesCluster, LocalCluster
from vimvol.errors import InputError
from vimvol.preflight.room import BARE, USUAL, check_room

MANY = {"CPU": 10**6, "GPU": 10**6}


def test_too_many_processes_are_refused_with_how_many_have_room() -> None:
    machine = int(distributed.system.MEMORY_LIMIT)
    count = machine // (BARE // 2)
    with pytest.raises(InputError) as refused:
        check_room(LocalCluster(), count, MANY, print)
    text = str(refused.value)
    assert text.startswith(f"each of {count} worker processes would have 0.18 GiB of memory and takes 0.35 GiB before")
    assert (
        f"fewer of them with --workers, as they share the machine's memory ({(machine // count) * count // USUAL[1]} "
        in text
    )
    assert "\n" not in text
    check_room(LocalCluster(), count, {"CPU": 1, "GPU": 1}, pytest.fail)  # no more than one is started


def test_a_share_that_may_be_too_little_is_told_and_one_that_is_usual_is_not() -> None:
    told: list[str] = []
    machine = int(distributed.system.MEMORY_LIMIT)
    check_room(LocalCluster(), machine // (BARE + (BARE >> 2)), MANY, told.append)
    (text,) = told
    assert text.startswith("warning: each of ")
    assert "0.62 GiB to 1.13 GiB are usual" in text
    check_room(LocalCluster(), 1, MANY, pytest.fail)
    check_room(AddressCluster(address="tcp://nowhere:1"), None, MANY, pytest.fail)


@pytest.mark.parametrize(
    ("count", "memory", "whose", "advice"),
    [
        (
            1,
            300 << 20,
            "the one worker process would have 0.29 GiB",
            "running on a machine, or in a job",
        ),
        (
            1,
            600 << 20,
            "the one worker process would have 0.59 GiB",
            "running on a machine, or in a job",
        ),
        (
            2,
            800 << 20,
            "each of 2 worker processes would have 0.39 GiB",
            r"fewer .* \(one would have 0\.78 GiB\)",
        ),
        (3, 1200 << 20, "each of 3 worker processes would have 0.39 GiB", r"fewer .* \(1 would have what is usual\)"),
    ],
)
def test_of_a_small_machine_no_more_is_promised_than_it_has(count, memory, whose, advice, monkeypatch) -> None:
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", memory)
    told: list[str] = []
    try:
        check_room(LocalCluster(), count, MANY, told.append)
    except InputError as error:
        told.append(str(error))
    (text,) = told
    assert whose in text
    assert re.search(f"more by {advice}", text)


@pytest.mark.parametrize(
    ("cluster", "advice"),
    [
        (
            JobsCluster(kind="slurm", cpu={"jobs": 9, "cores": 8, "memory": "2GB"}),
            r"more cpu\.memory .*\(now 2GB\), or",
        ),
        (KubernetesCluster(image="i", cpu={"workers": 2, "memory": "256Mi"}), r"more cpu\.memory .*\(now 256Mi\)"),
    ],
)
def test_jobs_and_pods_are_refused_before_they_are_asked_for(cluster, advice, sample: Path, tmp_path: Path) -> None:
    """This machine has no batch system, which would be told next."""
    out = tmp_path / "out.zarr"
    with pytest.raises(
        InputError, match=rf"each worker process would have 0\.2\d GiB .*; give a worker more by {advice}"
    ):
        segment_volume(f"{sample}:raw", str(out), small_config(), cluster=cluster)
    assert not out.exists()
