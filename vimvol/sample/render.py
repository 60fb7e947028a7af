"""From shapes to grey values: how a section through neurites looks under the electron beam."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vimvol.geometry import Block
from vimvol.sample.noise import Float, Hash, hash_array, key, normal, uniform
from vimvol.sample.organelles import Grains, Mitochondria, mitochondria_at
from vimvol.sample.section import Section, bump
from vimvol.sample.spec import SampleSpec

PIXEL = 4.6
"""nm: the grain of the cytoplasm and the blur were fitted at this pixel size."""
SPECK = 1.7
"""Standard deviation of the blur that makes the largest specks of cytoplasm out of white noise, in the same."""
TRUNCATE = 3.0
"""Where the blurs end, in standard deviations."""

MICROTUBULES = Grains(cell=56.0, depth=60.0, radius=(7.0, 12.0))
VESICLES = Grains(cell=84.0, depth=60.0, radius=(13.0, 22.0))
DENSE_CORES = Grains(cell=260.0, depth=60.0, radius=(22.0, 34.0))


def generate(spec: SampleSpec, block: Block | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Return grey values and ground truth of a synthetic EM volume, or of one block of it.

    A block equals the same part of the whole, voxel for voxel, so a volume larger than memory can be made block by
    block. The work is proportional to the block; many thin blocks cost more, as each is computed with a halo.

    Parameters
    ----------
    spec
        What to make.
    block
        Voxels (z, y, x) inside the volume; none: all.

    Returns
    -------
    raw
        (Z, Y, X) uint8, membranes dark.
    labels
        (Z, Y, X) uint64: the neurite of every voxel, 1 to `count_neurites`, without gaps at membranes. Every neurite
        runs through all sections and every label occurs. A neurite is connected, but for specks at sharp corners:
        less than 1 voxel in 5,000 is cut off from the rest of its neurite.

    Raises
    ------
    InputError
        If the block is empty or reaches outside the volume.
    """
    block = spec.block(block)
    raw = np.empty(block.shape, dtype=np.uint8)
    labels = np.empty(block.shape, dtype=np.uint64)
    halo = halo_of(spec)
    inner = (slice(halo, -halo), slice(halo, -halo))
    for plane, index in enumerate(range(block.begin[0], block.end[0])):
        section = Section.cut(spec, index, block, halo)
        labels[plane] = section.labels[inner]
        raw[plane] = _Painter(section).picture()[inner]
    return raw, labels


def halo_of(spec: SampleSpec) -> int:
    """Return how many voxels (y, x) around a block bear on it: the reach of both blurs, shot noise and gradients."""
    return math.ceil(TRUNCATE * (SPECK + spec.look.blur) * PIXEL / min(spec.voxel_size[1:])) + 6


class _Painter:
    """Paints one section, from the inside of neurites to the detector.

    Methods take and change ``image``, (Y, X) float32 grey values from 0 to 255.
    """

    def __init__(self, section: Section) -> None:
        self.section = section
        self.spec = section.spec
        self.look = section.spec.look
        self.keys: Hash = section.leaves.keys
        self.noise = self._white()
        self.depth, self.membrane = section.membrane()
        self.grain = self._speckle(0, 1.2)

    def picture(self) -> NDArray[np.uint8]:
        """Return the grey values of the section with its halo, (Y, X)."""
        image = self._cytoplasm()
        self._grains(image)
        self._reticulum(image)
        for row in (0, 1):
            section, share = self.section, self.look.mitochondria
            self._mitochondria(image, mitochondria_at(section.leaves, section.bodies, section.z, row, share))
        self._membranes(image)
        return self._recorded(self._blurred(image, self.look.blur))

    def _white(self) -> Hash:
        rows = hash_array(key(self.spec.seed, 5), np.array([self.section.index]), self.section.rows)
        return hash_array(rows[:, None], self.section.columns)

    def _blurred(self, image: Float, sigma: float) -> Float:
        """Return an image blurred by ``sigma`` pixels of 4.6 nm."""
        sigmas = [sigma * PIXEL / size for size in self.spec.voxel_size[1:]]
        return np.asarray(ndimage.gaussian_filter(image, sigmas, truncate=TRUNCATE, mode="nearest"))

    def _speckle(self, part: int, sigma: float) -> Float:
        """Return blurred white noise of standard deviation about 1, (Y, X)."""
        voxels = sigma * PIXEL / math.sqrt(self.spec.voxel_size[1] * self.spec.voxel_size[2])
        loss = max(2.0 * math.sqrt(math.pi) * voxels, 1.0)
        return self._blurred(normal(self.noise, part), sigma) * np.float32(loss)

    def _of_neurite(self, values: NDArray[np.floating]) -> Float:
        """Spread a number of every neurite (N,) over its voxels (Y, X)."""
        return values.astype(np.float32)[self.section.cells.first]

    def _cytoplasm(self) -> Float:
        look, smooth = self.look, self.section.smooth
        tone = 182.0 + 11.0 * look.tones * np.clip(normal(self.keys, 1), -2.2, 1.8)
        tone -= 34.0 * max(look.tones, 1.0) * (uniform(self.keys, 2) < look.dark)
        rough = self._of_neurite(0.9 + 0.7 * uniform(self.keys, 3))
        rough *= np.clip(0.9 + 1.8 * smooth(0, 120.0, 100.0), 0.3, 1.6)
        # Specks of ribosomes and filaments are darker than the sap, never brighter.
        specks = 12.0 * self.grain + 8.0 * np.maximum(self.grain, 0.0)
        specks += 22.0 * np.maximum(self._speckle(1, SPECK) + 0.2, 0.0)
        image = self._of_neurite(tone) - look.texture * rough * specks + look.texture * 60.0 * smooth(1, 130.0, 80.0)
        return np.asarray(image)

    def _grains(self, image: Float) -> None:
        section, seed, crowding = self.section, self.spec.seed, self.look.crowding
        z, y, x = section.z, section.flat_y, section.flat_x
        inside = self.look.grains * np.clip((self.depth - 20.0) / 10.0, 0.0, 1.0)
        density = self._of_neurite(crowding * (0.15 + 0.5 * uniform(self.keys, 0)))
        away, number = MICROTUBULES.outline(key(seed, 6), z, y, x, density)
        image -= inside * (40.0 + 40.0 * number) * np.clip(0.5 - away / 8.0, 0.0, 1.0)
        density = self._of_neurite(crowding * np.where(uniform(self.keys, 1) < 0.3, 0.7, 0.2))
        away, number = VESICLES.outline(key(seed, 8), z, y, x, density)
        image -= inside * (25.0 + 50.0 * number) * (bump(away + 2.0, 10.0) + 0.2 * (away < 0))
        density = self._of_neurite(crowding * np.where(uniform(self.keys, 1) < 0.5, 0.12, 0.02))
        away, number = DENSE_CORES.outline(key(seed, 9), z, y, x, density)
        image -= inside * 120.0 * np.clip(-away / 10.0, 0.0, 1.0)

    def _reticulum(self, image: Float) -> None:
        """Draw pale sheets inside neurites, where smooth noise crosses 0: no membranes between neurites."""
        if self.look.reticulum == 0:
            return
        section, sizes = self.section, self.spec.voxel_size[1:]
        course = section.smooth(6, 240.0, 200.0)
        gy, gx = np.gradient(course, *sizes)
        away = np.abs(course) / np.maximum(np.sqrt(gy * gy + gx * gx), 2e-4)
        there = np.clip(6.0 * (section.smooth(7, 420.0, 300.0) + 0.2 * self.look.reticulum - 0.3), 0.0, 1.0)
        inside = np.clip((self.depth - 45.0) / 15.0, 0.0, 1.0)
        image -= 0.6 * there * inside * bump(away, 14.0) * np.maximum(image - self.look.membrane, 0.0)

    def _mitochondria(self, image: Float, mitochondria: Mitochondria) -> None:
        m, own = mitochondria, self.section.cells.first
        pick = np.flatnonzero((m.short > 20.0)[own])
        own = own.ravel()[pick]
        dy = self.section.bent.coarse_y.ravel()[pick] - m.y[own]
        dx = self.section.bent.coarse_x.ravel()[pick] - m.x[own]
        along = dy * m.dy[own] + dx * m.dx[own]
        across = dx * m.dy[own] - dy * m.dx[own]
        radial = np.sqrt((along / m.long[own]) ** 2 + (across / m.short[own]) ** 2)
        depth = (1.0 - radial) * m.short[own]  # nm inside the outline, roughly
        near = depth > -30.0
        pick, own, depth, along = pick[near], own[near], depth[near], along[near]
        wave = self.section.smooth(2, 70.0, 60.0).ravel()[pick]
        phase = along / 42.0 + 5.0 * wave
        stripe = 2.0 * np.abs(phase - np.floor(phase) - 0.5)
        stripes = 110.0 * np.maximum(stripe - 0.5, 0.0) - 60.0 * np.maximum(0.3 - stripe, 0.0)
        matrix = self.look.matrix + self.look.cristae * stripes
        matrix += 50.0 * wave - 14.0 * self.grain.ravel()[pick]
        sharp = np.clip(3.0 * m.cut[own], 0.25, 1.0)  # the tip fills only a part of the section's thickness
        values = image.ravel()[pick]
        values += np.clip(depth / (8.0 / sharp) + 0.5, 0.0, 1.0) * (0.5 + 0.5 * sharp) * (matrix - values)
        values -= sharp * (60.0 * bump(depth - 6.0, 13.0) - 30.0 * bump(depth - 22.0, 10.0))
        np.put(image, pick, values)

    def _membranes(self, image: Float) -> None:
        patchy = self.look.patchy
        strength = np.clip(1.0 + patchy * self.section.smooth(3, 100.0, 80.0), max(1.0 - patchy / 2, 0.0), 1.0)
        image -= self.membrane * strength * np.maximum(image - self.look.membrane, 0.0)

    def _recorded(self, image: Float) -> NDArray[np.uint8]:
        """Add what the microscope adds: shot noise, uneven light, and the contrast of this section."""
        spec, section = self.spec, self.section
        shot = ndimage.gaussian_filter(normal(self.noise, 2), 0.45, truncate=4.0, mode="nearest")
        image = image + (spec.noise * 18.0) * shot
        image += 18.0 * section.smooth(4, 2500.0, 25.0 if spec.serial_sections else 400.0)
        if spec.serial_sections:
            h = hash_array(key(spec.seed, 10), np.array([section.index]))
            gain, offset = (np.clip(normal(h, k), -2.0, 2.0) for k in (0, 1))
            image = (image - 140.0) * (1.0 + 0.05 * gain) + 140.0 + 4.0 * offset
        return np.asarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
