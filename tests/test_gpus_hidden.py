"""What tests see of the GPUs of a machine that has some."""

import os
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_configure


@pytest.mark.parametrize(
    ("marks", "seen"),
    [
        ("", ""),
        ("not chaos", ""),
        ("slow", ""),
        ("not gpu and not chaos", ""),
        ("gpu", "0"),
        ("slow or gpu", "0"),
    ],
)
def test_gpus_are_seen_where_their_tests_are_asked_for(marks, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", "here")
    pytest_configure(SimpleNamespace(option=SimpleNamespace(markexpr=marks)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_this_run_sees_none():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
