import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vimvol.config import SegmentConfig, TrainConfig, load_config
from vimvol.config.explain import list_text
from vimvol.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"


def test_defaults_are_valid_and_frozen() -> None:
    config = load_config(SegmentConfig)
    with pytest.raises(ValidationError):
        config.predict.batch = 3  # type: ignore[misc]


def test_later_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("predict: {batch: 2, tile: [64, 64]}\n")
    config = load_config(SegmentConfig, str(file), ["predict.batch=3", "predict.batch=5", "segment.mode=2d"])
    assert (config.predict.batch, config.predict.tile, config.segment.mode) == (5, (64, 64), "2d")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "predict.tille=[1, 2]",
            "unknown key .*did you mean 'predict.tile'.*valid keys here: model, tile",
        ),
        ("predcit.tile=[1, 2]", "unknown key 'predcit'.*did you mean 'predict'"),
        ("mode=2d", "unknown key 'mode'; did you mean 'segment.mode'.*valid keys here: input"),
        ("tile=[1, 2]", "did you mean 'predict.tile' or 'fragments.tile'"),
        ("predict.bata=0.3", "unknown key 'predict.bata'.*did you mean 'predict.batch'"),
        ("bta=0.3", "did you mean 'agglomerate.beta'"),
        ("nothing_like_it=1", "unknown key 'nothing_like_it'; valid keys"),
        (
            "input.voxel_size=[50, 4.6]",
            r"^input.voxel_size = \[50, 4.6\] has 2 values: give 3, e.g. input.voxel_size='\[50,4.6,4.6\]' "
            r"\(input.voxel_size: nm along z, y, x\)$",
        ),
        ("input.voxel_size=[50]", r"voxel_size = \[50\] has 1 value: give 3"),
        ("input.voxel_size=[9, 9, 9, 9]", "has 4 values: give 3"),
        ("input.voxel_size=50", "voxel_size = 50 cannot be used: give a list of 3 values, e.g. "),
        (
            "input.voxel_size=[50, 0, 4.6]",
            r"^input.voxel_size.1 = 0 cannot be used: give a value above 0, e.g. input.voxel_size='\[50,4.6,4.6\]' ",
        ),
        ("input.voxel_size=[-50, 4.6, 4.6]", r"voxel_size.0 = -50 cannot be used: give a value above 0"),
        ("input.voxel_size=[.nan, 4.6, 4.6]", r"voxel_size.0 = nan cannot be used: give a finite number"),
        ("input.voxel_size=[.inf, 4.6, 4.6]", r"voxel_size.0 = inf cannot be used: give a finite number"),
        ("fragments.sigma_seeds=.inf", r"^fragments.sigma_seeds = inf cannot be used: give a finite number"),
        ("run.deadline=.inf", r"^run.deadline = inf cannot be used: give a finite number"),
        ("input.axes=zyy", r"^input.axes = 'zyy' cannot be used: use y and x, and of z, c, t .* each once"),
        ("input.axes=zyq", r"^input.axes = 'zyq' cannot be used: use y and x"),
        ("input.axes=zx", r"^input.axes = 'zx' cannot be used: use y and x"),
        ("input.roi=[[0, 0], [1, 1, 1]]", r"input.roi.0 = \[0, 0\] has 2 values: give 3, e.g. .* \(input.roi: region"),
        (
            "input.roi=[0, 64]",
            r"^input.roi = \[0, 64\] cannot be used: give a list of 2 lists of 3 values, e.g. "
            r"input.roi='\[\[0,0,0\],\[64,512,512\]\]' \(input.roi: region of .*z, y, x.*outside\)$",
        ),
        ("predict.batch=0", r"^predict.batch = 0 cannot be used: give a value of at least 1 \(predict.batch: tiles a"),
        ("predict.batch=many", "predict.batch = 'many' cannot be used: give a whole number"),
        ("agglomerate.beta=2", "beta = 2 cannot be used: give a value above 0 and below 1"),
        ("fragments.threshold=-1", "threshold = -1 cannot be used: give a value from 0 to 1"),
        ("agglomerate.size_weighting=perhaps", "cannot be used: give true or false"),
        ("segment.mode=4d", "mode = '4d' cannot be used: give '2d' or '3d'"),
        ("predict.classes=a", r"cannot be used: give a list of values, e.g. predict.classes='\[\"boundary\"\]' "),
        ("predict=3", "predict = 3 cannot be used: predict is a section, set its keys, e.g. predict.model"),
        (
            "input.roi=[1, 2]",
            r"input.roi = \[1, 2\] cannot be used: give a list of 2 lists of 3 values",
        ),
        ("predict", "no 'key=value' form"),
        ("segment.mode.a=1", "segment.mode"),
        ("predict.tile=[1, ", "not valid YAML"),
    ],
)
def test_mistakes_get_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(SegmentConfig, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [".nan", ".inf", "null"])
def test_what_is_missing_anyway_needs_no_intensity(value: str) -> None:
    assert load_config(SegmentConfig, None, [f"input.missing={value}"]).input.missing is None


def _lists(kind: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the settings that take a list of values."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _lists(field.annotation, f"{before}{name}.")
        elif list_text(field.annotation):
            yield before + name, field


@pytest.mark.parametrize("key", [key for key, _ in _lists(SegmentConfig)])
def test_a_setting_that_takes_a_list_shows_one_that_fits(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} = 'x' cannot be used: give a list of ") as caught:
        load_config(SegmentConfig, None, [f"{key}=x"])
    (example,) = shlex.split(re.search(r"e\.g\. (\S+)", str(caught.value))[1])
    assert example.startswith(f"{key}=")
    load_config(SegmentConfig, None, [example])


def test_a_mistake_names_where_it_was_made_and_what_the_value_means(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("predict: {batch: 0}\n")
    with pytest.raises(ConfigError, match=r"predict\.batch = 0 in \S+a\.yaml cannot be used: give .*tiles a forward"):
        load_config(SegmentConfig, str(file))
    file.write_text("predict: {batch: 2}\n")
    with pytest.raises(ConfigError, match=r"^predict\.tile = 32 cannot be used: give a list of 2 values"):
        load_config(SegmentConfig, str(file), ["predict.tile=32"])
    with pytest.raises(ConfigError, match=r"^predict\.tile\.0 = 'a' cannot be used: .*\(predict\.tile: voxels"):
        load_config(SegmentConfig, str(file), ["predict.tile=[a, 4]"])


def test_values_that_do_not_go_together_are_told_without_the_whole_configuration(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("out: x\n")
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, str(file), ["batch=3"])
    assert str(caught.value) == f"{file} cannot be used: there is nothing to train on; give volumes or images"


def test_unknown_keys_inside_a_list_name_the_valid_ones() -> None:
    data = {"out": "x", "volumes": [{"raw": "a", "labels": "b", "train": [0, 1], "wieght": 2}]}
    with pytest.raises(ConfigError, match=re.escape("'volumes.0.wieght'") + ".*did you mean 'volumes.0.weight'"):
        load_config(TrainConfig, None, data)


@pytest.mark.parametrize(("text", "message"), [("- 1\n", "list"), ("a: [", "YAML"), (None, "does not exist")])
def test_files_that_are_no_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "a.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(SegmentConfig, str(file))


@pytest.mark.parametrize(
    "path",
    sorted([*CONFIGS.glob("train/*.yaml"), *CONFIGS.glob("segment/*.yaml")]),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_every_shipped_configuration_is_valid_and_holds_only_differences(path: Path) -> None:
    kind = {"train": TrainConfig, "segment": SegmentConfig}[path.parent.name]
    config = load_config(kind, str(path))
    own = yaml.safe_load(path.read_text())
    base = own.pop("base", None)
    below = yaml.safe_load((path.parent / base).read_text()) if base else {}
    for name in own:
        inherited = {name: below[name]} if name in below else {}
        before = getattr(load_config(kind, str(path), inherited), name) if inherited else _default(kind, name)
        assert getattr(config, name) != before, f"{name} repeats the default or what the file starts from"


def _default(kind: type, name: str) -> object:
    return getattr(kind.model_construct(), name, None)


def test_a_file_may_start_from_another(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.yaml").write_text("predict: {batch: 2, tile: [64, 64]}\nsegment: {mode: 2d}\n")
    (tmp_path / "deep" / "b.yaml").write_text("base: ../a.yaml\npredict: {batch: 3}\n")
    (tmp_path / "c.yaml").write_text("base: deep/b.yaml\npredict: {tile: [32, 32]}\n")
    config = load_config(SegmentConfig, str(tmp_path / "c.yaml"), ["predict.device=cpu"])
    assert (config.predict.batch, config.predict.tile, config.segment.mode) == (3, (32, 32), "2d")
    assert config.predict.device == "cpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [("base: a.yaml\n", "its own base"), ("base: no.yaml\n", "no.yaml does not exist"), ("base: [1]\n", "is no path")],
)
def test_a_base_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(SegmentConfig, str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("predict.axes=[z, y]", 'predict.axes = ["z", "y"] cannot be used: give '),
        ("predict.invert=[yes]", "predict.invert = [true] cannot be used: give true or false"),
        ("input.mask={a: [b]}", 'input.mask = {"a": ["b"]} cannot be used: give text'),
        ("output.chunk=[1, 2]", "output.chunk = [1, 2] has 2 values: give 3"),
        ("predict.axes=w", "predict.axes = 'w' cannot be used"),
    ],
)
def test_a_list_that_does_not_fit_is_shown_as_it_is_written(override: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(SegmentConfig, None, [override])
    assert str(refused.value).startswith(text)
