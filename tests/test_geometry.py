import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.geometry import Block, Grid, round_up

shapes = st.tuples(*[st.integers(1, 12)] * 3)


@given(shape=shapes, cell=shapes)
def test_cells_partition_the_volume(shape: tuple[int, ...], cell: tuple[int, ...]) -> None:
    grid = Grid(shape, cell)
    hits = np.zeros(shape, int)
    for index in grid:
        hits[grid.block(index).slices] += 1
    assert (hits == 1).all()
    assert len(list(grid)) == len(grid)


@given(shape=shapes, cell=shapes)
def test_flat_numbers_are_a_bijection_in_c_order(shape: tuple[int, ...], cell: tuple[int, ...]) -> None:
    grid = Grid(shape, cell)
    assert [grid.flat(index) for index in grid] == list(range(len(grid)))
    assert [grid.index(flat) for flat in range(len(grid))] == list(grid)


@given(data=st.data(), shape=shapes, cell=shapes)
def test_overlapping_is_exactly_the_cells_that_share_a_voxel(data: st.DataObject, shape, cell) -> None:
    begin = tuple(data.draw(st.integers(-3, s + 2)) for s in shape)
    end = tuple(data.draw(st.integers(b, b + 15)) for b in begin)
    box, grid = Block(begin, end), Grid(shape, cell)
    expected = [index for index in grid if grid.block(index).intersect(box).size > 0]
    assert list(grid.overlapping(box)) == expected


@given(a=shapes, b=shapes, c=shapes, d=shapes)
def test_intersection_is_that_of_the_voxels(a, b, c, d) -> None:
    one = Block(a, tuple(x + y for x, y in zip(a, b, strict=True)))
    two = Block(c, tuple(x + y for x, y in zip(c, d, strict=True)))

    def voxels(block: Block) -> set[tuple[int, ...]]:
        return set(itertools.product(*(range(x, y) for x, y in zip(block.begin, block.end, strict=True))))

    assert voxels(one.intersect(two)) == voxels(one) & voxels(two)
    assert one.contains(two) == (voxels(two) <= voxels(one))


def test_within_cuts_the_same_voxels_out_of_a_crop() -> None:
    volume = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    outer, inner = Block((1, 2, 1), (5, 6, 6)), Block((2, 3, 3), (4, 5, 6))
    crop = volume[outer.slices]
    np.testing.assert_array_equal(crop[inner.within(outer).slices], volume[inner.slices])


def test_halo_and_clip() -> None:
    grown = Block((0, 4), (4, 8)).grow((2, 1), (0, 3))
    assert grown == Block((-2, 3), (4, 11))
    assert grown.clip((3, 9)) == Block((0, 3), (3, 9))
    assert str(grown) == "[-2:4, 3:11]"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Block((1,), (0,)),
        lambda: Block((0,), (1, 1)),
        lambda: Grid((0, 1), (1, 1)),
        lambda: Grid((1, 1), (1, 0)),
        lambda: Grid((1, 1), (1,)),
    ],
)
def test_impossible_boxes_and_grids_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"begin|shape"):
        make()


def test_a_missing_cell_is_an_error() -> None:
    with pytest.raises(IndexError, match="no cell"):
        Grid((4, 4), (2, 2)).block((2, 0))


@given(value=st.integers(0, 1000), multiple=st.integers(1, 50))
def test_round_up(value: int, multiple: int) -> None:
    result = round_up(value, multiple)
    assert result % multiple == 0
    assert 0 <= result - value < multiple
