from pathlib import Path

import numpy as np
import pytest

from vimvol.geometry import Block
from vimvol.io import arrays
from vimvol.io.arrays import create_array, has_layout, read_box, write_box

LAYOUT = {"chunk": (1, 4, 4), "shard": (1, 8, 8)}


def test_what_is_written_is_flushed_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "a")
    create_array(url, (2, 16, 12), "uint16", **LAYOUT)
    flushed = []
    monkeypatch.setattr(arrays, "make_durable", lambda path: flushed.append(path))
    box = Block((1, 8, 0), (2, 16, 12))
    data = np.arange(1, 97, dtype=np.uint16).reshape(1, 8, 12)
    write_box(url, box, data)
    np.testing.assert_array_equal(read_box(url, box), data)
    stored = {path for path in Path(url).rglob("*") if path.is_file() and path.name != "zarr.json"}
    assert set(flushed) == stored
    assert len(stored) == 2


def test_creating_again_keeps_data_of_the_same_layout_only(tmp_path: Path) -> None:
    url, box = str(tmp_path / "a"), Block((0, 0, 0), (1, 8, 8))
    create_array(url, (1, 8, 8), "uint8", **LAYOUT)
    write_box(url, box, np.ones((1, 8, 8), np.uint8))
    create_array(url, (1, 8, 8), "uint8", **LAYOUT)
    assert read_box(url, box).all()
    create_array(url, (1, 8, 8), "uint8", chunk=(1, 8, 8), shard=(1, 8, 8))
    assert not read_box(url, box).any()
    assert has_layout(url, (1, 8, 8), "uint8", (1, 8, 8), (1, 8, 8))
    assert not has_layout(url, (1, 8, 8), "uint8", (1, 4, 4), (1, 8, 8))
