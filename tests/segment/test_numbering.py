import numpy as np

from vimvol.segment.faces import pack
from vimvol.segment.numbering import number_after


def test_numbers_go_on_after_those_seen_and_outside_stays():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (2, 5, 7)).astype(np.uint32)
    stored = pack(labels, rng.integers(0, 64, labels.shape).astype(np.uint8))
    whole = np.full((2, 6, 8), -1, np.int64)
    number_after(stored[:, ::-1], 40, whole[:, :5, 1:])
    assert (whole[:, :5, 1:] == np.where(labels > 0, labels.astype(np.int64) + 40, 0)[:, ::-1]).all()
    assert (whole[:, 5] == -1).all()
    assert (whole[:, :, 0] == -1).all()
