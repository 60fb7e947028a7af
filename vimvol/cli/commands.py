"""All commands, in the order in which help lists them."""

from vimvol.cli import segmenting, planning, standing, agglomerating, scoring, tuning, training, exchanging, looking  # isort: skip
from vimvol.cli.app import app

__all__ = [
    "agglomerating",
    "app",
    "exchanging",
    "looking",
    "planning",
    "scoring",
    "segmenting",
    "standing",
    "training",
    "tuning",
]
