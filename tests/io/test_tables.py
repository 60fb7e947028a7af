"""Tables come back as they were written, or not at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.errors import StorageError
from vimvol.io.tables import read_table, write_table

dtypes = st.sampled_from(["uint8", "int32", ">u2", "int64", "uint64", "float32", "float64", "bool"])
arrays = dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(max_dims=2, min_side=0, max_side=5)))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=8), arrays, max_size=4))
def test_any_columns(tmp_path_factory, columns):
    folder = str(tmp_path_factory.getbasetemp() / "tables")
    write_table(folder, "one", columns)
    result = read_table(folder, "one")
    assert list(result) == list(columns)
    for name, column in columns.items():
        assert result[name].dtype == column.dtype.newbyteorder("=")
        assert result[name].flags.writeable
        np.testing.assert_array_equal(result[name], column)


def test_a_table_is_one_object(tmp_path):
    columns = {"u": np.arange(1000, dtype=np.uint64) + 2**63, "mean": np.linspace(0, 1, 1000)[::-1]}
    write_table(str(tmp_path / "a.zarr" / "edges"), "0.0.32", columns)
    [stored] = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert stored.stat().st_size < 16000
    result = read_table(str(tmp_path / "a.zarr" / "edges"), "0.0.32")
    np.testing.assert_array_equal(result["u"], columns["u"])
    np.testing.assert_array_equal(result["mean"], columns["mean"])


def test_a_second_write_replaces_the_first(tmp_path):
    for columns in ({"a": np.arange(9), "b": np.arange(9)}, {"a": np.arange(2)}, {}):
        write_table(str(tmp_path), "x/y", columns)
        assert list(read_table(str(tmp_path), "x/y")) == list(columns)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_what_is_no_column_is_refused(tmp_path):
    for column in (np.array(["a"]), np.array([object()]), np.zeros(2, "M8[s]"), np.zeros(2, "c8")):
        with pytest.raises(ValueError, match="use integers"):
            write_table(str(tmp_path), "x", {"a": column})
    assert not list(tmp_path.iterdir())


def test_a_missing_table(tmp_path):
    with pytest.raises(StorageError, match="x: it does not exist; run the stage"):
        read_table(str(tmp_path), "x")


@pytest.mark.parametrize("where", [0, 9, 20, 200, -2])
def test_one_damaged_byte_is_noticed(tmp_path, where):
    write_table(str(tmp_path), "x", {"a": np.random.default_rng(0).integers(0, 2**62, 100)})
    data = bytearray((tmp_path / "x.table").read_bytes())
    data[where] ^= 64
    (tmp_path / "x.table").write_bytes(data)
    with pytest.raises(StorageError, match="no intact table"):
        read_table(str(tmp_path), "x")


@pytest.mark.parametrize("length", [0, 3, 8, 15, 100, -1])
def test_a_cut_table_is_noticed(tmp_path, length):
    write_table(str(tmp_path), "x", {"a": np.random.default_rng(0).integers(0, 2**62, 100)})
    data = (tmp_path / "x.table").read_bytes()
    (tmp_path / "x.table").write_bytes(data[:length])
    with pytest.raises(StorageError, match=r"reading table .*damaged"):
        read_table(str(tmp_path), "x")
