import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from vimvol.cli.commands import app
from vimvol.config import SegmentConfig, load_config

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def calls(page: Path) -> list[list[str]]:
    """The words of every call of vimvol that stands in a line of code."""
    lines, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            lines += line.split(" && ")
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r" *vimvol ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_of_a_page_exists(page: Path) -> None:
    commands = get_command(app).commands
    for words in calls(page):
        options = {name for option in commands[words[0]].params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
        if words[0] in ("segment", "agglomerate", "plan"):
            settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            load_config(SegmentConfig, None, [text for text in settings if not text.startswith("agglomerate.costs=")])


def test_calls_are_found() -> None:
    assert len(calls(README)) >= 7
    assert sum(bool(calls(page)) for page in PAGES) >= 6


def files(page: Path) -> list[Path]:
    """The files of the repository that a page names or links to."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])(?:benchmarks|configs|pipelines|tests|vimvol)/[\w/]+\.(?:yaml|py)", text)
    linked = re.findall(r"\]\(([\w./-]+\.(?:md|png|jpg))\)", text)
    return [ROOT / name for name in named] + [page.parent / name for name in linked]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_of_a_page_exists(page: Path) -> None:
    assert not [path for path in files(page) if not path.is_file()]


def test_files_are_found() -> None:
    assert len(files(README)) >= 10


def test_extras_are_installed_from_the_sources() -> None:
    code = [path for name in ("vimvol", "pipelines", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in [*PAGES, *code] if "vimvol[" in path.read_text(encoding="utf-8")]
