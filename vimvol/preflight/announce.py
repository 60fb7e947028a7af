"""What is told before the first stage of a run begins: what was opened and chosen, and what takes the next seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vimvol.address import is_url, parse_address
from vimvol.config.cluster import AddressCluster, ClusterConfig, CudaCluster, JobsCluster, KubernetesCluster
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.cluster.local import processes_of
from vimvol.engine.pool import Resource
from vimvol.errors import VimvolError
from vimvol.geometry import Block
from vimvol.io import Volume
from vimvol.io.formats.base import ArrayInfo, names
from vimvol.io.mask import Mask
from vimvol.io.openers import describe
from vimvol.report.amounts import count_text

Tell = Callable[[str], None]
"""Takes a line of text."""

UNUSED = "not used: "
"""How a line begins that tells of a setting which was given in vain."""

MOST_NAMED = 5
"""Other arrays of a container that are named."""


def nobody(text: str) -> None:
    """Tell nobody."""


class Warnings:
    """Tells lines, and keeps those that are worth to be repeated when a run has ended, as they scroll away.

    Attributes
    ----------
    lines
        What to repeat, once each.

    Parameters
    ----------
    tell
        Who is told.
    """

    def __init__(self, tell: Tell) -> None:
        self.lines: tuple[str, ...] = ()
        self._tell = tell

    def __call__(self, text: str) -> None:
        """Tell a line."""
        self._tell(text)
        if text.startswith(UNUSED):
            self.repeat(text)

    def repeat(self, text: str) -> None:
        """Keep a line that was told at more length, unless it is empty."""
        if text and text not in self.lines:
            self.lines += (text,)


def input_text(address: str, volume: Volume) -> str:
    """Return what was opened; where the address left it open which array, that it was chosen, and of which others.

    Parameters
    ----------
    address
        ``PATH[:DATASET]`` as the user gave it.
    volume
        What it led to.
    """
    shape = " x ".join(map(str, volume.shape))
    size = " x ".join(f"{along:g}" for along in volume.voxel_size) + " nm"
    text = f"input: {volume.address}, {shape} voxels (z, y, x) of {size if volume.voxel_size_known else 'unknown size'}"
    named = parse_address(address)[1]
    why = f"since {named} is no array but a group" if named else "since none was named"
    if is_url(volume.url):  # of an object store every array would be a request
        return f"{text}, {volume.dtype}{f'; chosen, {why}' if named not in ('', volume.dataset) else ''}"
    if volume.dataset == named:
        return f"{text}, {volume.dtype}"
    others: list[ArrayInfo] = []
    with contextlib.suppress(VimvolError):  # of what is not read, nothing has to be intact
        below = describe(f"{volume.url}:{named}" if named else volume.url)
        others = [each for each in below if each.dataset != volume.dataset]
    there = f" before {names(others, MOST_NAMED)}" if others else ""
    return f"{text}, {volume.dtype}{f'; chosen, {why},{there}'.rstrip(',') if there or named else ''}"


def workers_text(cluster: ClusterConfig, workers: int | None, calls: Calls | None = None) -> str:
    """Return what is waited for before blocks can be computed; empty where it is nothing.

    Parameters
    ----------
    cluster, workers, calls
        As `vimvol.engine.cluster.open_cluster` takes them.
    """
    if isinstance(cluster, AddressCluster):
        return f"workers: connecting to {cluster.address or cluster.scheduler_file}"
    if cluster.kind != "local":
        return f"workers: starting a cluster by {cluster.kind}"
    count, asked = processes_of(workers, calls), processes_of(workers, None)
    fewer = f" of {asked}, as no stage has more blocks left" if count < asked else ""
    return f"workers: starting {count_text(count, 'process', 'processes')}{fewer}" if count else ""


def more_memory_text(cluster: ClusterConfig, resource: Resource) -> str:
    """Return by which setting a worker gets more memory, to follow on "by".

    Parameters
    ----------
    cluster
        Its settings.
    resource
        What is wanted of the worker; one with a GPU only where the cluster has any that say so.
    """
    if isinstance(cluster, AddressCluster):
        return "starting the workers of that cluster with a larger --memory-limit"
    if isinstance(cluster, CudaCluster):
        count = cluster.cpu_workers
        now = "as many as --workers or cores" if count is None else str(count)
        return (
            f"fewer cpu_workers in the settings of the cluster (now {now}), as all processes share the machine's memory"
        )
    if isinstance(cluster, JobsCluster | KubernetesCluster):
        name = "gpu" if cluster.gpu is not None and (resource == "GPU" or cluster.cpu is None) else "cpu"
        pool = getattr(cluster, name)
        divided = (
            f", or fewer {name}.cores (now {pool.cores})" if name == "cpu" and cluster.kind != "kubernetes" else ""
        )
        return f"more {name}.memory in the settings of the cluster (now {pool.memory}){divided}"
    return "fewer of them with --workers, as they share the machine's memory"


def mask_text(mask: Mask, volume: Volume) -> str:
    """Return how a mask lies over a volume; where it leaves part of it uncovered, that nothing is segmented there."""
    each = " x ".join(f"{along:g}" for along in mask.factor)
    text = f"mask: {mask.volume.address}, each of its voxels {each} (z, y, x) of the volume's"
    covered = mask.covered(volume.shape)
    if covered == Block.whole(volume.shape):
        return text
    places = ", ".join(f"{a} {b}:{e}" for a, b, e in zip("zyx", covered.begin, covered.end, strict=True))
    share = covered.size / Block.whole(volume.shape).size
    return f"{text}; it covers {places}, {share:.1%} of the volume, and nothing is segmented beyond"
