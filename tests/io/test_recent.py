import pickle

import numpy as np
import pytest

from vimvol.io.recent import Recent


def table(n_bytes):
    return {"a": np.zeros(n_bytes // 2, np.uint8), "b": np.zeros(n_bytes - n_bytes // 2, np.uint8)}


class Reads:
    """Tables by name that know how often they were read."""

    def __init__(self, sizes):
        self.sizes, self.count = sizes, dict.fromkeys(sizes, 0)

    def __call__(self, recent, *names):
        for name in names:
            assert (
                sum(column.nbytes for column in recent.get(name, lambda n=name: self.read(n)).values())
                == self.sizes[name]
            )

    def read(self, name):
        self.count[name] += 1
        return table(self.sizes[name])


def test_a_table_is_read_once_while_it_is_kept():
    reads, recent = Reads({"x": 40, "y": 40}), Recent(100)
    reads(recent, "x", "y", "x", "y")
    assert reads.count == {"x": 1, "y": 1}


def test_what_was_asked_for_longest_ago_goes_first():
    reads, recent = Reads({"x": 40, "y": 40, "z": 40}), Recent(100)
    reads(recent, "x", "y", "x", "z", "x", "z", "y")
    assert reads.count == {"x": 1, "y": 2, "z": 1}


def test_a_table_beyond_the_limit_is_read_every_time_and_leaves_others_their_room():
    reads, recent = Reads({"small": 40, "huge": 101}), Recent(100)
    reads(recent, "huge", "huge", "small", "small")
    assert reads.count == {"small": 1, "huge": 2}
    reads, recent = Reads({"small": 40, "huge": 101}), Recent(100)
    reads(recent, "small", "huge", "small", "huge", "small")
    assert reads.count == {"small": 1, "huge": 2}


def test_a_kept_table_cannot_be_written_to():
    kept = Recent().get("x", lambda: table(10))
    with pytest.raises(ValueError, match="read-only"):
        kept["a"][0] = 1


def test_what_fails_to_be_read_is_read_again():
    recent = Recent()
    with pytest.raises(OSError, match="lost"):
        recent.get("x", lambda: (_ for _ in ()).throw(OSError("lost")))
    assert recent.get("x", lambda: table(4))["a"].shape == (2,)


def test_a_copy_for_another_process_begins_empty():
    reads, recent = Reads({"x": 40}), Recent(100)
    reads(recent, "x")
    reads(pickle.loads(pickle.dumps(recent)), "x", "x")
    assert reads.count == {"x": 2}
