"""What a synthetic volume is made of: shape, voxel size, seed and a few sizes in nm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.sample.look import Look

MAX_ANISOTROPY = 2.0
"""Ratio of the voxel's z to its x size above which a volume counts as serial sections."""
SMALLEST = 8
"""Voxels (y, x) of the typical neurite below which neurites get lost between voxels."""


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """A synthetic EM volume; equal specs give equal voxels, in whatever blocks they are made.

    The defaults imitate serial-section TEM of *Drosophila* neuropil: 50 nm sections of 4.6 nm pixels, profiles of
    20-150 pixels across, membranes of 3-5 pixels. A voxel size that is at most twice as coarse along z as along x
    leaves out what only serial sections have: misalignment and changes of contrast from section to section.

    Attributes
    ----------
    shape
        Voxels along (z, y, x).
    voxel_size
        nm along (z, y, x).
    seed
        Any integer; another one gives another volume of the same kind.
    neurite_size
        Typical width of a neurite, nm: the median of the diameters of circles of equal area. A tenth of the neurites
        is twice as wide, a hundredth almost four times.
    membrane_width
        Full width of the dark line between two neurites, nm; at half of its depth it is about half as wide.
    noise
        Strength of the imaging noise; 0 is none, 1 as in the recordings that were imitated.
    look
        Staining, organelles and sharpness.

    Raises
    ------
    InputError
        If an extent is below 1, or a size or the noise is out of range or not finite.
    """

    shape: tuple[int, int, int] = (20, 512, 512)
    voxel_size: tuple[float, float, float] = (50.0, 4.6, 4.6)
    seed: int = 1
    neurite_size: float = 200.0
    membrane_width: float = 36.0
    noise: float = 1.0
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or any(s < 1 for s in self.shape):
            raise InputError(f"sample shape {self.shape} holds no voxels; give three extents (z, y, x) of at least 1")
        if len(self.voxel_size) != 3 or any(not (math.isfinite(v) and v > 0) for v in self.voxel_size):
            raise InputError(f"sample voxel size {self.voxel_size} cannot be; give three sizes (z, y, x) in nm above 0")
        if not (math.isfinite(self.neurite_size) and self.neurite_size >= SMALLEST * max(self.voxel_size[1:])):
            raise InputError(
                f"neurite size {self.neurite_size} nm is below {SMALLEST} voxels, so that neurites would fall apart; "
                f"give at least {SMALLEST * max(self.voxel_size[1:]):g}"
            )
        if not 0 < self.membrane_width < self.neurite_size:
            raise InputError(
                f"membrane width {self.membrane_width} nm leaves no cytoplasm in neurites of {self.neurite_size} nm; "
                "give a width between 0 and the neurite size"
            )
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise InputError(f"noise {self.noise} has no meaning; give 0 for none or 1 for that of real recordings")

    @property
    def serial_sections(self) -> bool:
        """Whether z is sampled so coarsely that the volume is a stack of sections."""
        return self.voxel_size[0] > MAX_ANISOTROPY * self.voxel_size[2]

    @property
    def extent(self) -> tuple[float, float]:
        """Extent of a section along (y, x), nm."""
        return self.shape[1] * self.voxel_size[1], self.shape[2] * self.voxel_size[2]

    def block(self, block: Block | None) -> Block:
        """Return ``block``, or the whole volume for none.

        Raises
        ------
        InputError
            If the block is empty or reaches outside the volume.
        """
        whole = Block.whole(self.shape)
        if block is None:
            return whole
        if len(block.begin) != 3 or block.size == 0 or not whole.contains(block):
            raise InputError(f"block {block} does not lie in the sample {whole}; give a non-empty box inside it")
        return block
