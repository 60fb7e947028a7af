import json
import shlex
from pathlib import Path

import pytest

from tests.support import digest, mistake, read_only, settings


@pytest.mark.parametrize(
    "command",
    [
        "segment {raw} {place}/out.zarr",
        "segment {raw} {free}/out.zarr --log {place}/run.jsonl",
        "segment {raw} {free}/out.zarr --performance-report {place}/run.html",
        "plan {raw} {place}/out.zarr",
        "plan {raw} {free}/out.zarr --json {place}/plan.json",
        "demo {place}/demo",
        "tune {place}/tuned {raw} {labels}",
        "export-nnunet {raw} {place}/slices",
        "export-nnunet {train} {place}/raw --id 501",
        "train {train} --set out={place}/run",
        "download cremi {place}/cremi",
        "train-edges {out} {labels} --out {place}/costs.safetensors",
        "evaluate {out} {labels} --json {place}/scores.json",
    ],
)
def test_where_nothing_can_be_written_a_command_ends_in_one_line_before_it_begins(
    run,
    sample: Path,
    reference: Path,
    tmp_path: Path,
    command: str,
) -> None:
    train, free = tmp_path / "train.yaml", tmp_path / "free"
    free.mkdir()
    volume = {"raw": f"{sample}:raw", "labels": f"{sample}:labels", "train": [0, 3], "validate": [3, 4]}
    train.write_text(json.dumps({"out": "run", "volumes": [volume]}))
    names = {"raw": f"{sample}:raw", "labels": f"{sample}:labels", "out": reference, "free": free, "train": train}
    with read_only(tmp_path / "protected") as place:
        words = shlex.split(command.format(place=place.parent, **names))
        options = settings() if words[0] in ("segment", "plan", "tune") else []
        code, out, err = run(*words, *options)
        assert not list(place.parent.iterdir())
    assert (code, out) == (2, ""), err
    assert str(place.parent) in mistake(err)
    assert "cannot" in mistake(err)
    assert not list(free.iterdir())


def test_a_finished_output_that_cannot_be_written_stays_and_is_judged(
    run,
    sample: Path,
    reference: Path,
    tmp_path: Path,
) -> None:
    with read_only(tmp_path / "protected", reference) as out:
        before = digest(out)
        for more in (["--name", "finer"], []):
            code, text, err = run("agglomerate", out, "--set", "agglomerate.beta=0.3", *more)
            assert (code, text) == (2, ""), err
            assert f"output {out} cannot be written" in mistake(err)
        assert run("status", out)[0] == 0
        assert run("evaluate", out, f"{sample}:labels")[0] == 0
        code, text, err = run("qa", out)
        assert err.splitlines()[0] == f"opening {out}"
        assert "no picture, since it cannot be written there; [" in text
        assert code == (1 if "FAIL" in text else 0)
        assert digest(out) == before
