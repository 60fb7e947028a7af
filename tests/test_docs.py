import re
import shlex
from pathlib import Path

from typer.main import get_command

from vimvol.cli import app
from vimvol.config import SegmentConfig, load_config

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_command_and_option_of_the_readme_exists() -> None:
    commands = get_command(app).commands
    lines = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]
    calls = [line.split("vimvol ", 1)[1] for line in lines if re.search(r"(^|&& )vimvol ", line)]
    assert len(calls) >= 7
    for call in calls:
        words = shlex.split(call, comments=True)
        options = {name for option in commands[words[0]].params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options, call
        if words[0] == "segment":
            load_config(SegmentConfig, None, [words[i + 1] for i, word in enumerate(words) if word == "--set"])


def test_every_file_of_the_readme_exists() -> None:
    root = Path(__file__).parents[1]
    named = re.findall(r"\b((?:configs|pipelines)/[\w/]+\.(?:yaml|py))", README)
    assert named
    assert all((root / name).is_file() for name in named)
