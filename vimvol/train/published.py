"""Which files the data sets of the ViM-UNet paper have, and where their authors publish them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vimvol.address import exists
from vimvol.errors import InputError


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    name, url
        What it is called here, and where it lies.
    sha256
        Checksum, where one is published.
    unpacked
        For an archive: names of the folders that it holds.
    """

    name: str
    url: str
    sha256: str | None = None
    unpacked: tuple[str, ...] = ()


_CREMI = "https://cremi.org/static/data/"
_LIVECELL = "https://livecell-dataset.s3.eu-central-1.amazonaws.com/LIVECell_dataset_2021/"

DATASETS: dict[str, tuple[RemoteFile, ...]] = {
    "cremi": tuple(
        RemoteFile(f"sample_{sample}_20160501.hdf", f"{_CREMI}sample_{sample}_20160501.hdf", sha256)
        for sample, sha256 in (
            ("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d"),
            ("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8"),
            ("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052"),
        )
    ),
    "livecell": (
        *(
            RemoteFile(f"livecell_coco_{part}.json", f"{_LIVECELL}annotations/LIVECell/livecell_coco_{part}.json")
            for part in ("train", "val", "test")
        ),
        RemoteFile(
            "images.zip",
            f"{_LIVECELL}images.zip",
            unpacked=("images", "livecell_train_val_images", "livecell_test_images"),
        ),
    ),
}
"""Files by the name that `vimvol download` takes."""


def explain_missing(path: str) -> None:
    """Tell where a missing file or folder comes from, if it is known by its name; else leave it to the reader.

    Parameters
    ----------
    path
        PATH[:DATASET] of something to read.

    Raises
    ------
    InputError
        If it is missing and belongs to a data set of `DATASETS`, or lies in a folder that may not be entered.
    """
    if "://" in path:
        return
    here = Path(path if exists(path) else path.partition(":")[0])
    if exists(here):
        return
    for dataset, files in DATASETS.items():
        for file in files:
            if here.name == file.name or here.name in file.unpacked:
                what = f"unpack {file.url} there" if file.unpacked else f"put a copy of {file.url} there"
                folder = here.parent.parent if here.parent.name in file.unpacked else here.parent
                raise InputError(
                    f"{here} is missing; `vimvol download {dataset} {folder}` fetches it, or {what}, or set root to "
                    "the folder that holds it"
                )
