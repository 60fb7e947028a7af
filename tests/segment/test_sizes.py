from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.geometry import Grid
from vimvol.segment.graph import edge_table
from vimvol.segment.nodes import merge_nodes, node_table
from vimvol.segment.sizes import Contacts, merge_contacts, settle

STEPS = ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def faces(labels, boundaries, flat):
    """Yield every pair of touching voxels as labels and summed boundaries; outside of the volume is 0."""
    padded = np.pad(labels, 1)
    heights = np.pad(boundaries.astype(int), 1)
    for step in STEPS[: 2 if flat else 3]:
        behind = tuple(-s for s in step)
        other, height = np.roll(padded, behind, (0, 1, 2)), heights + np.roll(heights, behind, (0, 1, 2))
        yield from zip(padded.ravel().tolist(), other.ravel().tolist(), height.ravel().tolist(), strict=True)


def by_voxels(labels, boundaries, flat, join_below, fill_below):
    """Apply both rules to the voxels of a volume, segments by their smallest id."""
    labels = labels.copy()

    def apply(choice):
        """Join every key with its value; all at once."""
        parent = {i: i for i in np.unique(labels).tolist()}

        def root(i):
            return i if parent[i] == i else root(parent[i])

        for a, b in choice.items():
            low, high = sorted((root(a), root(b)))
            parent[high] = low
        labels[:] = np.vectorize(root, otypes=[labels.dtype])(labels)
        return bool(choice)

    def touching():
        pairs, totals = Counter(), Counter()
        for a, b, height in faces(labels, boundaries, flat):
            for own, other in ((a, b), (b, a)) if a != b else ():
                pairs[own, other] += 1
                totals[own, other] += height
        return pairs, totals, Counter(labels.ravel().tolist())

    def join():
        pairs, totals, voxels = touching()
        best = {}
        for (a, b), count in pairs.items():
            if a and b and voxels[a] < join_below:
                rank = Fraction(totals[a, b], count), -count, b
                best[a] = min(best.get(a, rank), rank)
        return apply({a: rank[2] for a, rank in best.items()})

    def fill():
        pairs, _, voxels = touching()
        near = {a: {b for own, b in pairs if own == a} for a in voxels if a}
        return apply({a: min(b) for a, b in near.items() if voxels[a] < fill_below and len(b) == 1 and 0 not in b})

    while join():
        pass
    while fill():
        pass
    return labels


def by_graph(fragments, segment, boundaries, flat, join_below, fill_below, cell, order):
    """Apply both rules to the tables of blocks, as the stages do."""
    ids = np.arange(1, len(segment), dtype=np.uint64)
    shape, grid = fragments.shape, Grid(fragments.shape, cell)
    edges, nodes = [], []
    for index in grid:
        own = grid.block(index)
        window = own.grow((0, 0, 0), (1, 1, 1)).clip(shape)
        part = fragments[window.slices]
        edges.append(edge_table(part, boundaries[window.slices], own.within(window), across=not flat))
        nodes.append(node_table(part, own.within(window), ids, window.begin, shape))
    table = merge_nodes(nodes)
    voxels, surface = np.zeros(len(segment), int), np.zeros(len(segment), int)
    np.add.at(voxels, segment[table.fragment], table.voxels)
    np.add.at(surface, segment[table.fragment], table.surface[: 1 if flat else 2].sum(axis=0))
    small = np.flatnonzero((voxels > 0) & (voxels < max(join_below, fill_below)))
    parts = []
    for table in edges:
        u, v = segment[table.u], segment[table.v]
        wanted = np.isin(u, small) | np.isin(v, small)
        parts.append(Contacts.of(u[wanted], v[wanted], table.count[wanted], table.totals.sum(axis=0)[wanted]))
    contacts = merge_contacts([parts[i] for i in order(len(parts))])
    assert len(merge_contacts([contacts])) == len(contacts)
    settled = settle(contacts, small.astype(np.uint64), voxels[small], surface[small], join_below, fill_below)
    return settled.groups.of(segment)[fragments], settled


@st.composite
def cases(draw):
    """Fragments, each connected or not, the segment of each, and boundaries of few values, so that means are equal."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(2, 6)))
    fragments = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 9), fill=st.just(1)))
    # a segment goes by its smallest fragment
    segment = np.arange(10, dtype=np.uint64)
    for i in range(2, 10):
        if draw(st.booleans()):
            segment[i] = segment[draw(st.integers(1, i - 1))]
    boundaries = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 100, 200, 255])))
    return fragments, segment, boundaries


@given(cases(), st.booleans(), st.integers(0, 12), st.integers(0, 60), st.data())
@settings(max_examples=150)
def test_tables_of_any_blocks_give_what_voxels_give(case, flat, join_below, fill_below, data):
    fragments, segment, boundaries = case
    present = np.unique(fragments)
    # of segments by their smallest fragment only those count that are there
    names = {s: min(present[segment[present] == s], default=0) for s in np.unique(segment).tolist()}
    segment = np.array([0, *(names[s] for s in segment[1:].tolist())], np.uint64)
    expected = by_voxels(segment[fragments], boundaries, flat, join_below, fill_below)
    cell = tuple(data.draw(st.integers(1, s)) for s in fragments.shape)
    order = data.draw(st.sampled_from([range, lambda n: range(n)[::-1]]))
    found, settled = by_graph(fragments, segment, boundaries, flat, join_below, fill_below, cell, order)
    np.testing.assert_array_equal(found, expected)
    left = len(np.unique(expected[expected > 0]))
    assert left == len(np.unique(segment[fragments][fragments > 0])) - settled.joined - settled.filled


def whole(labels, boundaries=None, join_below=0, fill_below=0, *, flat=False):
    labels = np.array(labels, np.int64)
    boundaries = np.zeros(labels.shape, np.uint8) if boundaries is None else np.array(boundaries, np.uint8)
    segment = np.arange(int(labels.max()) + 1, dtype=np.uint64)
    return by_graph(labels, segment, boundaries, flat, join_below, fill_below, labels.shape, range)[0]


def test_a_small_segment_joins_behind_the_lowest_boundary_and_not_along_the_longest():
    labels = [[[1, 1, 1, 1], [1, 3, 3, 2], [1, 1, 2, 2]]]
    low = [[[200, 200, 200, 200], [0, 0, 0, 0], [0, 0, 0, 0]]]
    assert (whole(labels, low, join_below=3)[0, 1, 1:3] == 2).all()
    # without any boundary the longest contact decides
    assert (whole(labels, join_below=3)[0, 1, 1:3] == 1).all()
    assert (whole(labels, join_below=2)[0, 1, 1:3] == 3).all()


def test_large_segments_never_become_one_through_small_ones():
    found = whole([[[1, 1, 1, 3, 4, 2, 2, 2]]], join_below=3)
    assert len(np.unique(found)) == 2
    assert found[0, 0, 0] != found[0, 0, -1]


def test_an_orphan_stays():
    assert whole([[[1, 0, 2, 2, 2]]], join_below=3).tolist() == [[[1, 0, 2, 2, 2]]]


def enclosed(inner):
    labels = np.ones((5, 5, 5), int)
    labels[1:4, 1:4, 1:4] = 2
    labels[2, 2, 2] = inner
    return labels


def test_holes_are_filled_from_the_inside_up_to_a_size():
    assert (whole(enclosed(3), fill_below=28) == 1).all()
    # with its own hole the middle one has 27 voxels
    assert (whole(enclosed(3), fill_below=27) == enclosed(2)).all()
    # what touches background or a face of the volume is no hole
    assert (whole(enclosed(0), fill_below=28) == enclosed(0)).all()
    assert (whole(enclosed(2)[1:], fill_below=28) == enclosed(2)[1:]).all()
    # unless slices count by themselves: then the faces along z do not
    assert (whole(enclosed(2)[2:3], fill_below=28, flat=True) == 1).all()


@example(0)
@given(st.integers(0, 3))
def test_no_contacts_are_no_obstacle(n):
    segment = np.arange(1, n + 1, dtype=np.uint64)
    empty = merge_contacts([])
    settled = settle(Contacts.from_columns(empty.columns()), segment, np.ones(n, int), 6 * np.ones(n, int), 5, 5)
    assert (len(settled.groups.node), settled.joined, settled.filled) == (0, 0, 0)
