from importlib import resources

import pytest

import vimvol


def test_checkers_of_types_are_told_that_there_are_types() -> None:
    assert resources.files("vimvol").joinpath("py.typed").is_file()  # without it every name is Any to a user's mypy


@pytest.mark.parametrize("name", vimvol.__all__)
def test_every_name_loads_and_is_described(name: str) -> None:
    assert name == "__version__" or getattr(vimvol, name).__doc__
