"""Colours of labels: a function of the id, so that a neuron keeps its colour in all slices and pictures.

Segments that touch often have ids that are near each other, as ids are given in the order of the volume; so it is ids
near each other that get colours far apart, better than by chance. Where others touch in what is shown whose colours are
alike, the smaller ones get other colours there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# OKLab to linear sRGB (Ottosson 2020, "A perceptual color space for image processing"): colours of one lightness in
# it look equally light, so that no segment stands out by chance.
_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
LIGHTNESS = (0.404, 0.792)
"""Of the darkest and the lightest."""
CHROMA = 0.13
_HUE, _LIGHT = np.uint64(0xC5BC9A011226D801), np.uint64(0x925B7D99AC0A1801)
"""Steps, of 2^64, from an id to the next on the circle of hues and in lightness, where darkest follows lightest.
With the two, a hue that comes again has another lightness. Steps, lightness and chroma were searched for: in OKLab no
two ids are nearer than 0.083 up to 8 apart, 0.053 up to 31 and 0.014 up to 500, so that no column of segments that are
numbered row by row has one colour. The price is beyond: 558 apart it may be 0.004."""

APART = 0.12
"""Distance in OKLab from which on the colours of segments that touch are not alike."""
TRIES = 32
"""Colours that a segment may get where others are like its own."""
_NEXT = np.uint64(0x9E3779B97F4A7C15)
"""From the id whose colour was tried to that whose colour is tried next: far apart, by the golden ratio."""
REACH = 3
"""Voxels between segments that are seen as touching; there may be a line of background."""


def label_colours(ids: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the colour of every id.

    Parameters
    ----------
    ids
        Any shape; 0 is background.

    Returns
    -------
    array of ``ids.shape + (4,)``
        Red, green, blue and opacity in [0, 1]; background is transparent black, everything else opaque.
    """
    numbers = np.asarray(ids, np.uint64)
    return _opaque(_lab(numbers), numbers)


@dataclass(frozen=True)
class Shown:
    """Colours of the labels of what is shown together.

    Attributes
    ----------
    ids
        (N,) uint64, ascending: all labels of it.
    colours
        (N, 4), as of `label_colours`.
    """

    ids: NDArray[np.uint64]
    colours: NDArray[np.float32]

    def of(self, labels: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return the colours of labels that are among them, ``labels.shape + (4,)``."""
        return self.colours[np.searchsorted(self.ids, labels)]


def told_apart(slices: Sequence[NDArray[np.integer]]) -> Shown:
    """Choose colours for labels by which those that touch in some slices can be told from each other.

    A segment has its own colour, that of `label_colours`, unless a larger one that it touches has one like it. The
    choice depends on what is shown alone, and takes time in proportion to that.

    Parameters
    ----------
    slices
        (Y, X) labels each, of one volume; 0 is background.
    """
    shown = [np.zeros((0, 0), np.uint64), *(labels.astype(np.uint64) for labels in slices)]
    ids, sizes = np.unique(np.concatenate([labels.ravel() for labels in shown]), return_counts=True)
    rank = np.empty(len(ids), np.int64)
    # of segments of one size the order is as good as random, so that few wait for each other in a row
    rank[np.lexsort((ids * _NEXT, -sizes))] = np.arange(len(ids))
    pairs = _pairs(ids, shown)
    smaller, larger = np.take_along_axis(pairs, np.argsort(-rank[pairs], axis=1), axis=1).T
    above, below = _Neighbours.of(smaller, larger, len(ids)), _Neighbours.of(larger, smaller, len(ids))
    chosen = _lab(ids)
    waits = np.diff(above.begin)  # larger ones that have no colour yet
    ready = np.flatnonzero(waits == 0)
    while len(ready):
        _choose(ids, ready, above, chosen)
        freed, _ = below.among(ready)
        np.subtract.at(waits, freed, 1)
        ready = _distinct(freed[waits[freed] == 0])
    return Shown(ids, _opaque(chosen, ids))


@dataclass(frozen=True)
class _Neighbours:
    """Of every place among ids other places: those of place ``i`` are ``other[begin[i] : begin[i + 1]]``."""

    begin: NDArray[np.int64]
    other: NDArray[np.int64]

    @classmethod
    def of(cls, one: NDArray[np.int64], other: NDArray[np.int64], places: int) -> _Neighbours:
        """Return the others, (P,), of every ``one``, (P,)."""
        begin = np.concatenate([[0], np.cumsum(np.bincount(one, minlength=places))])
        return cls(begin, other[np.argsort(one, kind="stable")])

    def among(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the others of some places, one place after the other, and how many each has."""
        counts = self.begin[places + 1] - self.begin[places]
        first = self.begin[places] - (np.cumsum(counts) - counts)
        return self.other[np.arange(counts.sum()) + np.repeat(first, counts)], counts


def _choose(
    ids: NDArray[np.uint64], places: NDArray[np.int64], above: _Neighbours, chosen: NDArray[np.float64]
) -> None:
    """Enter the colours of some segments into ``chosen``, (N, 3), that has those of all larger ones that they touch.

    The first of `TRIES` colours that is not like any of these; if there is none, that which is least like them.
    """
    left = places[np.diff(above.begin)[places] > 0]
    best = np.full(len(left), -1.0)
    for number in range(TRIES):
        if not len(left):
            return
        around, counts = above.among(left)
        lab = _lab(ids[left] + _NEXT * np.array([number], np.uint64))  # modulo 2^64 is wanted
        distance = np.linalg.norm(np.repeat(lab, counts, axis=0) - chosen[around], axis=-1)
        nearest = np.minimum.reduceat(distance, np.cumsum(counts) - counts)
        better = nearest > best
        chosen[left[better]], best[better] = lab[better], nearest[better]
        left, best = left[nearest < APART], best[nearest < APART]


def _pairs(ids: NDArray[np.uint64], slices: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Return the places among ``ids``, (P, 2), of labels that lie within `REACH` along an axis of a slice."""
    found = [np.zeros(0, np.int64)]
    for labels in slices:
        places = np.searchsorted(ids, labels)
        for axis, step in itertools.product((0, 1), range(1, REACH + 1)):
            along = np.moveaxis(places, axis, 0)
            one, other = along[:-step].ravel(), along[step:].ravel()
            differ = (one != other) & (ids[one] > 0) & (ids[other] > 0)
            low, high = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
            found.append(_distinct(low * len(ids) + high))
    return np.stack(np.divmod(_distinct(np.concatenate(found)), max(1, len(ids))), axis=1)


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what `numpy.unique` does, which hashes integers in some versions and then takes ten times as long."""
    ordered = np.sort(numbers)
    found: NDArray[np.int64] = ordered[np.diff(ordered, prepend=-1) != 0]
    return found


def _lab(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the colours of ids in OKLab, ``numbers.shape + (3,)``."""
    # modulo 2^64 is wanted
    turn, rise = ((np.multiply(numbers, s) >> np.uint64(11)).astype(np.float64) / 2**53 for s in (_HUE, _LIGHT))
    hue, lightness = 2 * np.pi * turn, LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * rise
    return np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=-1)


def _opaque(lab: NDArray[np.float64], numbers: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return colours of OKLab as red, green, blue and opacity; background is transparent."""
    rgb = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    colours = np.concatenate([rgb, np.ones((*rgb.shape[:-1], 1))], axis=-1)
    colours[numbers == 0] = 0.0
    return colours.astype(np.float32)
