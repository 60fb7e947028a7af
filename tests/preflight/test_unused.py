from pathlib import Path

import pytest

from tests.support import digest, mistake, small_config
from vimvol.outputs.manifest import STORED, read_manifest, write_manifest
from vimvol.preflight.prepare import prepare


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"agglomerate__beta_across": 0.45}, None),
        ({"agglomerate__beta_across": 0.45, "segment__mode": "2d"}, "agglomerate.beta_across = 0.45, as in 2d mode"),
        (
            {"agglomerate__beta_across": 0.6, "input__voxel_size": [8, 8, 8]},
            "agglomerate.beta_across = 0.6, as fragments reach through sections",
        ),
        (
            {"agglomerate__beta": 0.3, "segment__mode": "2d", "fragments__seeds": "components"},
            "agglomerate.beta = 0.3, as fragments are whole instances",
        ),
        (
            {"agglomerate__solver": "greedy", "segment__mode": "2d", "fragments__seeds": "components"},
            "agglomerate.solver = greedy, as fragments are whole instances",
        ),
        ({"agglomerate__beta_learned": 0.4}, "agglomerate.beta_learned = 0.4, as no learned costs are given"),
        ({"predict__rescale": "auto"}, None),
        ({"predict__rescale": "auto", "predict__boundaries": "{sample}:raw"}, "predict.rescale = auto, as boundaries"),
        ({"cells__seed": 0.4}, "cells.seed = 0.4, as the network predicts no foreground"),
    ],
    ids=str,
)
def test_settings_that_are_given_and_not_used_are_told(sample: Path, tmp_path: Path, changes, told) -> None:
    given = {k: v.format(sample=sample) if isinstance(v, str) else v for k, v in changes.items()}
    lines: list[str] = []
    prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(**given), tell=lines.append)
    found = [line for line in lines if line.startswith("not used: ")]
    assert len(found) == (told is not None), found
    assert told is None or found[0].startswith(f"not used: {told}")


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "by an earlier version"])
def test_of_an_agglomeration_only_what_it_was_given_is_told(run, sample: Path, tmp_path: Path, earlier: bool) -> None:
    out = tmp_path / "out.zarr"
    given = {"segment.mode": "2d", "run.workers": 0, "agglomerate.beta_learned": 0.45}
    assert run("segment", f"{sample}:raw", out, *(f"--set={key}={value}" for key, value in given.items()))[0] == 0

    def agglomerated(*options: object) -> tuple[int, str, str]:
        if earlier:  # whose manifest told less of the input
            manifest = read_manifest(str(out)) or {}
            manifest.pop(STORED, None)
            write_manifest(str(out), manifest)
        return run("agglomerate", out, "--workers", 0, *options)

    _, _, err = agglomerated("--name", "a", "--set", "agglomerate.beta=0.3")
    assert "not used" not in err
    assert ("input: " in err) == earlier
    in_vain, used = "--set=agglomerate.beta_across=0.3", "--set=agglomerate.beta=0.35"
    for name in ("b", "segmentation"):
        _, _, err = agglomerated("--name", name, in_vain, used)
        assert err.count("not used: ") == err.count("not used: agglomerate.beta_across = 0.3, as in 2d mode") == 1
    before = digest(out)
    for name in ("c", "segmentation"):
        code, printed, err = agglomerated("--name", name, in_vain, "--set=agglomerate.beta_learned=0.3")
        assert (code, printed) == (2, "")
        assert "nothing that was set is used (agglomerate.beta_across = 0.3, as in 2d mode" in mistake(err)
        assert "; agglomerate.beta_learned = 0.3, as no learned costs are given), so" in err
    assert digest(out) == before
