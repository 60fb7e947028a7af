"""Scales, geometry and mistakes of neuroglancer's precomputed volumes."""

import gzip
import json

import numpy as np
import pytest

from tests.io.tensors import SHARDING, change, write_precomputed
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume
from vimvol.io.mask import open_mask

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 20, 24), dtype=np.uint8)


@pytest.fixture
def scales(tmp_path):
    """Two scales: voxels of (z, y, x) 40 x 8 x 4 and 40 x 16 x 8 nm, whose corner is at (400, 160, 40) nm."""
    path = write_precomputed(tmp_path / "a", IMAGE, resolution=(4, 8, 40), offset=(10, 20, 10))
    write_precomputed(tmp_path / "a", IMAGE[:, ::2, ::2], resolution=(8, 16, 40), offset=(5, 10, 10))
    return path


def test_the_finest_scale_is_taken(scales, tmp_path):
    volume = open_volume(scales)
    assert (volume.dataset, volume.format, volume.axes) == ("4_8_40", "precomputed", "xyz")
    assert (volume.voxel_size, volume.voxel_size_known, volume.offset) == ((40, 8, 4), True, (400, 160, 40))
    assert volume.read(Block((0, 0, 0), (1, 1, 1))) == IMAGE[0, 0, 0]
    coarse = open_volume(f"{scales}:8_16_40")
    # its first voxel has the same corner, and so a centre half a fine voxel further
    assert (coarse.voxel_size, coarse.offset, coarse.shape) == ((40, 16, 8), (400, 164, 42), (6, 10, 12))
    np.testing.assert_array_equal(coarse.read(Block.whole(coarse.shape)), IMAGE[:, ::2, ::2])
    change(tmp_path / "a" / "info", scales=json.loads((tmp_path / "a" / "info").read_text())["scales"][::-1])
    assert open_volume(scales).dataset == "4_8_40"


def test_a_coarse_scale_is_a_mask_of_the_finest(scales):
    mask = open_mask(f"{scales}:8_16_40", open_volume(scales))
    assert (mask.factor, mask.begin) == ((1, 2, 2), (0, 0, 0))


def test_scales_are_listed(scales):
    found = describe(scales)
    assert [(a.dataset, a.shape, a.chunks, a.shards) for a in found] == [
        ("4_8_40", (24, 20, 6), (16, 16, 4), None),
        ("8_16_40", (12, 10, 6), (16, 16, 4), None),
    ]
    assert [a.dataset for a in describe(f"{scales}:8_16_40")] == ["8_16_40"]
    with pytest.raises(InputError, match=r"has no dataset '1_1_1'; choose one of 4_8_40 .24 x 20 x 6 uint8."):
        open_volume(f"{scales}:1_1_1")


def test_shards_of_several_chunks(tmp_path):
    volume = open_volume(write_precomputed(tmp_path / "a", IMAGE, sharding=SHARDING))
    assert (volume.chunks, volume.shards) == ((4, 16, 16), (4, 32, 32))
    one = SHARDING | {"preshift_bits": 0, "minishard_bits": 0}
    assert open_volume(write_precomputed(tmp_path / "b", IMAGE, sharding=one)).shards is None


def test_the_identity_is_that_of_the_scale(scales, tmp_path):
    volume = open_volume(scales)
    before = volume.identity()
    coarse = next((tmp_path / "a" / "8_16_40").iterdir())
    coarse.write_bytes(coarse.read_bytes() + b"x")
    change(tmp_path / "a" / "info", mesh="mesh")
    assert volume.identity() == before
    fine = next((tmp_path / "a" / "4_8_40").iterdir())
    fine.write_bytes(fine.read_bytes() + b"x")
    assert volume.identity() != before


def test_a_scale_beside_the_folder(tmp_path):
    path = write_precomputed(tmp_path / "a" / "b", IMAGE)
    info = json.loads((tmp_path / "a" / "b" / "info").read_text())
    (tmp_path / "a" / "b" / info["scales"][0]["key"]).rename(tmp_path / "a" / "fine")
    info["scales"][0]["key"] = "../fine"
    (tmp_path / "a" / "b" / "info").write_text(json.dumps(info))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)
    assert volume.identity() == open_volume(volume.address).identity()


def _scale(path, **values):
    info = json.loads((path / "info").read_text())
    info["scales"][0] |= values
    (path / "info").write_text(json.dumps(info))


def test_capitals_and_what_may_be_left_out(tmp_path):
    path = write_precomputed(tmp_path / "a", IMAGE)
    change(tmp_path / "a" / "info", data_type="UINT8", type=None, num_channels=None)
    _scale(tmp_path / "a", encoding="RAW", hidden=True)
    info = json.loads((tmp_path / "a" / "info").read_text())
    del info["scales"][0]["voxel_offset"]
    (tmp_path / "a" / "info").write_text(json.dumps(info))
    volume = open_volume(path)
    assert volume.dtype == "uint8"
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


def test_what_matters_to_a_writer_alone_is_not_looked_at(tmp_path):
    path = write_precomputed(tmp_path / "a", IMAGE, encoding="png")
    _scale(tmp_path / "a", png_level=-1, jpeg_quality=None)  # as tensorstore wrote it until 0.1.85
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


@pytest.mark.parametrize("resolution", [None, [4, 8], [4, 8, 0], "nm", [4, 8, "deep"]])
def test_a_malformed_resolution_is_unknown(tmp_path, resolution):
    path = write_precomputed(tmp_path / "a", IMAGE)
    _scale(tmp_path / "a", resolution=resolution)
    volume = open_volume(path)
    assert (volume.voxel_size, volume.voxel_size_known, volume.offset) == ((1, 1, 1), False, (0, 0, 0))
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


@pytest.mark.parametrize(
    ("values", "scale", "message"),
    [
        ({}, {"encoding": "fpzip"}, "scale '4_4_8' of .* cannot be read .*encoding.* or write it in an encoding"),
        ({}, {"sharding": {"@type": "x"}}, "scale '4_4_8' of .* cannot be read"),
        ({}, {"size": [24, 20]}, r"scale '4_4_8' of .* has a damaged size \(\[24, 20\]\); restore 'info'"),
        ({}, {"chunk_sizes": []}, r"damaged chunk_sizes"),
        ({}, {"chunk_sizes": [[0, 1, 1]]}, r"damaged chunk_sizes"),
        ({}, {"voxel_offset": 3}, r"damaged voxel_offset \(3\)"),
        ({"data_type": "uint1"}, {}, r"damaged data_type \('uint1'\)"),
        ({"num_channels": 0}, {}, r"damaged num_channels \(0\)"),
        ({"scales": []}, {}, r"lists no scales of a volume"),
        ({"scales": [3, {"key": 4}]}, {}, r"lists no scales of a volume"),
    ],
)
def test_mistakes_are_one_line(tmp_path, values, scale, message):
    path = write_precomputed(tmp_path / "a", IMAGE)
    if scale:
        _scale(tmp_path / "a", **scale)
    change(tmp_path / "a" / "info", **values)
    with pytest.raises(InputError, match=message) as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is InputError


def test_what_is_no_volume(tmp_path):
    for name, text in (("torn", "{"), ("meshes", '{"@type": "neuroglancer_legacy_mesh"}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "info").write_text(text)
        with pytest.raises(InputError, match="no known format"):
            open_volume(str(tmp_path / name))
        with pytest.raises(InputError, match=f"{name} is not of the format precomputed"):
            open_volume(f"precomputed://{tmp_path / name}")


def test_what_would_read_as_zeros_is_refused(scales, tmp_path):
    folder = tmp_path / "a" / "8_16_40"
    for chunk in list(folder.iterdir()):
        folder.joinpath(f"{chunk.name}.gz").write_bytes(gzip.compress(chunk.read_bytes()))
        chunk.unlink()
    with pytest.raises(InputError, match=r"8_16_40 holds chunks compressed as files .*gunzip -r"):
        open_volume(f"{scales}:8_16_40")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"lists a scale '8_16_40', and .*8_16_40 does not exist; copy it"):
        open_volume(f"{scales}:8_16_40")
    assert open_volume(scales).dataset == "4_8_40"
