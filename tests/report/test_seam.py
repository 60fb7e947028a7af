"""Whether the picture of a seam shows the seam, and not the paper around it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vimvol.report.seam import draw_seam


@pytest.mark.parametrize(
    ("shape", "aspect"),
    [((256, 256), 1), ((150, 250), 1), ((20, 256), 1), ((20, 256), 10), ((256, 40), 1), ((8, 256), 1)],
)
@pytest.mark.parametrize("known", [True, False])
def test_panels_fill_most_of_the_picture(tmp_path: Path, shape: tuple[int, int], aspect: float, known: bool) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 200, shape).astype(np.uint8)
    labels = rng.integers(1, 9, shape).astype(np.uint64)
    path = tmp_path / "qa.png"
    intensities = raw if known else None
    draw_seam(intensities, raw, labels, str(path), seam=4, horizontal=True, aspect=aspect, title="z = 4")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    paper = (pixels == 255).mean()
    assert paper < (0.65 if min(shape) < 10 else 0.45)
    assert max(pixels.shape) < 1600


def test_intensities_from_0_to_1_have_the_contrast_of_others(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 200, (64, 64)).astype(np.uint8)
    labels = np.ones((64, 64), np.uint64)
    pictures = []
    for number, shown in enumerate((raw, (raw / 255).astype(np.float32))):
        path = tmp_path / f"{number}.png"
        draw_seam(shown, raw, labels, str(path), seam=4, horizontal=True, aspect=1, title="z = 4")
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("L"), float))
    np.testing.assert_allclose(*pictures, atol=2)
