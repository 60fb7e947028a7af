"""A segmentation does not depend on the format that its input is stored in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.io.tensors import GZIP, SHARDING, write_group, write_n5, write_precomputed
from tests.support import digest, small_config
from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError

SIZE = {"pixelResolution": {"dimensions": [4.6, 4.6, 50], "unit": "nm"}, "scales": [[1, 1, 1]]}


@pytest.fixture(scope="module")
def copies(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic volume and its labels as N5 and as precomputed volumes."""
    folder = tmp_path_factory.mktemp("formats")
    raw, labels = (zarr.open_array(str(sample / name), mode="r")[:] for name in ("raw", "labels"))
    write_group(folder / "a.n5" / "em", **SIZE)
    write_n5(folder / "a.n5" / "em" / "s0", raw, GZIP, block=(50, 40, 3))
    write_n5(folder / "a.n5" / "labels", labels.astype(np.uint64), GZIP, **SIZE)
    write_precomputed(folder / "raw", raw, resolution=(4.6, 4.6, 50), sharding=SHARDING)
    compressed = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": (8, 8, 8)}
    write_precomputed(folder / "labels", labels.astype(np.uint64), resolution=(4.6, 4.6, 50), **compressed)
    return folder


@pytest.mark.parametrize(("address", "workers"), [("a.n5:em", 2), ("raw", 0)])
def test_segmented_as_the_same_zarr(copies: Path, reference: Path, tmp_path: Path, address: str, workers: int) -> None:
    out = tmp_path / "out.zarr"
    segment_volume(f"{copies}/{address}", str(out), small_config(run__workers=workers))
    assert digest(out) == digest(reference)


def test_the_ground_truth_may_be_of_any_format(copies: Path, sample: Path, reference: Path) -> None:
    wanted = score(str(reference), f"{sample}:labels")["scores"]
    for truth in (f"{copies}/a.n5:labels", f"{copies}/labels", f"precomputed://{copies}/labels"):
        assert score(str(reference), truth)["scores"] == wanted


def test_an_output_that_is_the_input_is_refused(copies: Path) -> None:
    for source in (f"{copies}/a.n5:em", f"n5://{copies}/a.n5:em"):
        with pytest.raises(InputError, match=r"a\.n5 would overwrite the input"):
            segment_volume(source, f"{copies}/a.n5", small_config())


def test_what_is_in_it_is_shown(copies: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, text, _ = run("info", f"{copies}/a.n5")
    assert code == 0
    assert "em/s0" in text
    assert "xyz" in text
    assert "50 x 4.6 x 4.6" in text
    code, text, _ = run("info", f"precomputed://{copies}/raw")
    assert code == 0
    assert "4.6_4.6_50" in text
    code, text, _ = run("plan", f"{copies}/raw", str(copies / "out.zarr"), "--workers", "0")
    assert code == 0, text
    assert "predict" in text
