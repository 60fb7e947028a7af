"""A synthetic EM volume with ground truth, generated from a seed, block by block."""

from vimvol.sample.look import Look
from vimvol.sample.neurites import count_neurites
from vimvol.sample.render import generate
from vimvol.sample.spec import SampleSpec

__all__ = ["Look", "SampleSpec", "count_neurites", "generate"]
