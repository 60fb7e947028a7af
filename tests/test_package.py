import ast
from importlib import resources
from pathlib import Path

import pytest

import vimvol
from tests.support import small_config


def test_checkers_of_types_are_told_that_there_are_types() -> None:
    assert resources.files("vimvol").joinpath("py.typed").is_file()  # without it every name is Any to a user's mypy


@pytest.mark.parametrize("name", ["train", "segment", "cluster"])
def test_checkers_of_types_without_a_plugin_see_which_settings_have_a_default(name: str) -> None:
    """To them a field whose default is not named is one that every call must give."""
    tree = ast.parse(resources.files("vimvol.config").joinpath(f"{name}.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Field"]
    assert len(calls) > 20
    assert not [ast.unparse(call) for call in calls if call.args]


@pytest.mark.parametrize("name", vimvol.__all__)
def test_every_name_loads_and_is_described(name: str) -> None:
    assert name == "__version__" or getattr(vimvol, name).__doc__


def test_paths_may_be_those_of_pathlib(sample: Path, tmp_path: Path, ready: dict[str, str]) -> None:
    out = vimvol.segment_volume(sample / "raw", tmp_path / "out.zarr", small_config(**ready)).out
    assert vimvol.open_volume(sample / "raw") == vimvol.open_volume(str(sample / "raw"))
    assert vimvol.score(Path(out), sample / "labels") == vimvol.score(out, str(sample / "labels"))
