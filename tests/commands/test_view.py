"""The viewer shows what a run has made, and serves what the browser reads, to it alone."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import mistake, small_config, vimvol
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.commands.view import view
from vimvol.errors import InputError, MissingExtraError
from vimvol.geometry import Block
from vimvol.io import open_volume

pytest.importorskip("neuroglancer")


@pytest.fixture(scope="module")
def out(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(shutil.copytree(reference, tmp_path_factory.mktemp("view") / "out.zarr"))
    agglomerate(out, ["agglomerate.beta=0.6"], name="finer", workers=0)
    return out


def _get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def _layers(viewing) -> dict[str, dict]:
    return {layer["name"]: layer for layer in viewing._viewer.state.to_json()["layers"]}


def _source(layer: dict) -> str:
    return layer["source"][0]["url"] if isinstance(layer["source"], list) else layer["source"]


def test_layers_are_the_intensities_and_what_was_made_of_them(out):
    with view(out) as viewing:
        layers = _layers(viewing)
        state = viewing._viewer.state.to_json()
        assert _get(viewing.url)[0] == 200
    assert list(layers) == ["raw", "boundaries", "segmentation", "finer"]
    assert [layer["type"] for layer in layers.values()] == ["image", "image", "segmentation", "segmentation"]
    assert layers["boundaries"]["visible"] is False
    volume = open_volume(f"{out}:0")
    nm = [np.round(state["dimensions"][axis][0] * 1e9, 6) for axis in "zyx"]
    assert nm == list(volume.voxel_size)
    assert state["position"] == [extent // 2 for extent in volume.shape[::-1]]


def test_segmentations_that_are_called_as_other_layers_are_told_from_them(out, tmp_path):
    named = str(shutil.copytree(out, tmp_path / "out.zarr"))
    for name in ("raw", "boundaries"):
        agglomerate(named, ["agglomerate.beta=0.6"], name=name, workers=0)
    with view(named) as viewing:
        layers = viewing._viewer.state.to_json()["layers"]
    names = ["raw", "boundaries", "segmentation", "finer", "raw (segmentation)", "boundaries (segmentation)"]
    assert [layer["name"] for layer in layers] == names
    found = {layer["name"]: _source(layer).split("/labels/")[-1] for layer in layers[2:]}
    assert found["raw (segmentation)"] == "raw/|zarr:"
    assert found["boundaries (segmentation)"] == "boundaries/|zarr:"
    with view(named, ["raw", "raw"]) as viewing:  # asked for twice, there once
        layers = viewing._viewer.state.to_json()["layers"]
    assert [layer["name"] for layer in layers] == ["raw", "boundaries", "raw (segmentation)"]


def test_files_are_served_whole_and_in_parts_and_nothing_else(out, tmp_path):
    (Path(out).parent / "secret.txt").write_text("mine")
    with view(out, ["finer"]) as viewing:
        assert list(_layers(viewing)) == ["raw", "boundaries", "finer"]
        root = _source(_layers(viewing)["finer"]).removesuffix("/labels/finer/|zarr:")
        shard = next(
            path for path in Path(out, "labels/finer/0").rglob("*") if path.is_file() and path.name != "zarr.json"
        )
        data, url = shard.read_bytes(), f"{root}/{shard.relative_to(out)}"
        assert _get(url) == (200, data)
        assert _get(url, Range="bytes=10-19") == (206, data[10:20])
        assert _get(url, Range="bytes=-16") == (206, data[-16:])  # the index of a sharded array
        assert json.loads(_get(f"{root}/labels/finer/zarr.json")[1])["node_type"] == "group"
        for missing in (f"{root}/none", f"{root}/labels", f"{root}/../secret.txt", f"{root}/%2e%2e/secret.txt"):
            assert _get(missing)[0] in (403, 404)
        guessed = re.sub(r"/files/[^/]+", "/files/guess", url)
        assert _get(guessed)[0] == 404
    with pytest.raises(urllib.error.URLError):
        _get(url)


def test_a_file_that_was_written_anew_is_not_taken_for_the_one_before(out, tmp_path):
    changed = shutil.copytree(out, tmp_path / "out.zarr")
    with view(str(changed)) as viewing:
        root = _source(_layers(viewing)["boundaries"]).removesuffix("/|zarr:")
        with urllib.request.urlopen(f"{root}/zarr.json", timeout=30) as answer:
            tag = answer.headers["Etag"]
        assert _get(f"{root}/zarr.json", **{"If-None-Match": tag}) == (304, b"")
        (changed / "zarr.json").write_text("{}")
        assert _get(f"{root}/zarr.json", **{"If-None-Match": tag}) == (200, b"{}")


def test_intensities_of_any_format_are_read_by_this_process(out):
    raw = open_volume(json.loads(Path(out, "vimvol/run.json").read_text())["input"]["path"] + ":raw")
    with view(out) as viewing:
        volume = _source(_layers(viewing)["raw"]).split("/")[-1]
        info = json.loads(_get(f"http://127.0.0.1:{viewing.port}/neuroglancer/info/{volume}")[1])
        assert info["dataType"] == raw.dtype
        url = f"http://127.0.0.1:{viewing.port}/neuroglancer/npz/{volume}/1,1,1/1,2,3/3,12,23"
        code, data = _get(url)
    assert code == 200
    expected = raw.read(Block((1, 2, 3), (3, 12, 23)))
    np.testing.assert_array_equal(np.load(io.BytesIO(zlib.decompress(data))), expected)


def test_an_input_that_is_gone_is_told_and_the_rest_shown(out, tmp_path):
    moved = Path(shutil.copytree(out, tmp_path / "out.zarr"))
    manifest = json.loads((moved / "vimvol/run.json").read_text())
    manifest["input"]["path"] = str(tmp_path / "gone.zarr")
    (moved / "vimvol/run.json").write_text(json.dumps(manifest))
    told: list[str] = []
    with view(str(moved), tell=told.append) as viewing:
        assert list(_layers(viewing)) == ["boundaries", "segmentation", "finer"]
    assert len(told) == 1
    assert told[0].startswith("intensities are not shown: ")
    assert "gone.zarr does not exist" in told[0]


def test_a_segmentation_that_is_listed_and_gone_is_told_and_the_rest_shown(out, tmp_path):
    lost = shutil.copytree(out, tmp_path / "out.zarr")
    shutil.rmtree(lost / "labels" / "finer")
    told: list[str] = []
    with view(str(lost), tell=told.append) as viewing:
        assert list(_layers(viewing)) == ["raw", "boundaries", "segmentation"]
    assert len(told) == 1
    assert told[0].startswith("segmentation 'finer' is not shown: ")
    with pytest.raises(InputError, match="labels/finer/0"):
        view(str(lost), ["finer"])


def test_without_a_known_voxel_size_no_layer_has_a_unit(sample, tmp_path):
    raw = zarr.open_array(sample / "raw", mode="r")[:1]
    zarr.create_array(tmp_path / "raw.zarr", data=raw, zarr_format=2)
    out = str(tmp_path / "out.zarr")
    segment_volume(str(tmp_path / "raw.zarr"), out, small_config(segment__mode="2d", predict__rescale="none"))
    axes = zarr.open_group(out, mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert not any("unit" in axis for axis in axes)  # so the browser counts the axes of this layer without one
    with view(out) as viewing:
        [source] = _layers(viewing)["raw"]["source"]
        dimensions = viewing._viewer.state.to_json()["dimensions"]
    assert dimensions == source["transform"]["outputDimensions"] == {axis: [1.0, ""] for axis in "xyz"}


def test_an_output_that_is_not_finished_is_told_and_shown(out, tmp_path):
    stopped = Path(shutil.copytree(out, tmp_path / "out.zarr"))
    manifest = json.loads((stopped / "vimvol/run.json").read_text())
    (stopped / "vimvol/run.json").write_text(json.dumps({**manifest, "state": "running"}))
    told: list[str] = []
    with view(str(stopped), tell=told.append) as viewing:
        assert list(_layers(viewing)) == ["raw", "boundaries", "segmentation", "finer"]
    (line,) = told
    assert line.startswith(f"{stopped} is not finished, so what is missing ")
    with view(out, tell=told.append):
        assert told == [line]


def test_it_starts_without_what_only_networks_need() -> None:
    program = "import sys, vimvol.commands.view; sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_mistakes_are_one_line(out, tmp_path, capsys, monkeypatch):
    code, _, err = vimvol(capsys, monkeypatch, "view", tmp_path / "none.zarr")
    assert (code, "does not exist" in mistake(err)) == (2, True)
    assert vimvol(capsys, monkeypatch, "view", out, "--port", 70000)[0] == 2
    with pytest.raises(InputError, match="no segmentation 'other'; choose of segmentation, finer"):
        view(out, ["other"])
    with view(out) as viewing, pytest.raises(InputError, match=f"port {viewing.port} cannot be served"):
        _in_another_process(out, viewing.port)
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(MissingExtraError, match=r"pip install -c constraints.txt '\.\[view\]'"):
        view(out)


def _in_another_process(out: str, port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vimvol", "view", out, "--port", str(port)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    raise InputError(mistake(done.stderr))


def test_the_command_ends_as_it_is_told_to(out):
    command = [sys.executable, "-u", "-m", "vimvol", "view", out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline().split()
        assert _get(first[1])[0] == 200
        assert process.stdout.readline().startswith("from afar     ssh -L ")
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "closed\n"
    assert process.returncode == 0
