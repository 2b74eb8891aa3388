"""What each job's command line offers, and where its values go."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from engine.config import Settings
from engine.errors import ConfigError
from engine.plain_settings import part_at, with_part
from engine.presets import preset
from jobs.cli.command import main, parse
from jobs.cli.messages import message_of
from jobs.run import Run

MAIN_OPTIONS = {
    "train_cam": ("TrainCam", ["--data", "--cam.backbone", "--cam.training.num-epochs"]),
    "make_seeds": ("MakeSeeds", ["--data", "--cam", "--seed.alpha-low"]),
    "train_affinity": ("TrainAffinity", ["--data", "--seeds", "--affinity.radius"]),
    "label": ("Label", ["--data", "--cam", "--affinity", "--walk.num-steps", "--crf.num-iterations", "--keep-stages"]),
    "train_segmentation": ("TrainSegmentation", ["--data", "--masks", "--segmentation.head-channels"]),
    "segment": ("SegmentImages", ["--data", "--segmentation", "--use-tags"]),
    "evaluate": ("Evaluate", ["--masks", "--truth", "--column"]),
    "report": ("Report", ["--masks", "--truth", "--run-folder"]),
    "export": ("Export", ["--masks", "--format", "--min-confidence"]),
    "import": ("Import", ["--source", "--format", "--images"]),
    "check_tags": ("CheckTags", ["--cam", "--doubt-below"]),
    "export_network": ("ExportNetwork", ["--segmentation", "--format"]),
    "make_scenes": ("MakeScenes", ["--num-images"]),
    "run": ("Run", ["--data", "--truth", "--cam.backbone", "--walk.alpha", "--rounds.num-rounds", "--val-fraction"]),
}
WITHOUT_PRESET = "import", "export_network", "make_scenes"
USED = {
    "train_cam": ["cam", "val_fraction"],
    "make_seeds": ["cam.inference", "later_maps", "seed", "shards"],
    "train_affinity": ["affinity", "val_fraction"],
    "label": [
        *("cam.inference", "affinity.inference", "walk", "later_maps", "later_walk"),
        *("crf", "confidence", "shards"),
    ],
    "train_segmentation": ["segmentation", "val_fraction"],
    "segment": ["segmentation.inference", "crf", "confidence", "shards"],
    "export": ["val_fraction"],
    "check_tags": ["cam.inference", "shards"],
    "run": [item.name for item in dataclasses.fields(Settings) if item.name != "resources"],
}
"""The settings that a job uses, beside its resources."""
NEEDED = ["--data=m", "--out=o", "--cam=c", "--seeds=s", "--masks=m", "--segmentation=s", "--format=png"]


def _job(name: str) -> tuple[type[Any], Any]:
    module = importlib.import_module(f"jobs.{name}")
    return getattr(module, MAIN_OPTIONS[name][0]), module.run


def _help(name: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    options_class, run = _job(name)
    with pytest.raises(SystemExit) as stop:
        main(options_class, run, [*more, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def _needed(name: str) -> list[str]:
    """Values for the options that a job requires."""
    own = {item.name for item in dataclasses.fields(_job(name)[0])}
    return [option for option in NEEDED if option[2:].partition("=")[0] in own]


def _leaves(part: Any, path: str) -> Iterator[str]:
    """Dotted paths of the single settings below a path."""
    if not dataclasses.is_dataclass(part):
        yield path
        return
    for item in dataclasses.fields(part):
        yield from _leaves(getattr(part, item.name), f"{path}.{item.name}")


def _used_leaves(name: str, settings: Settings) -> list[str]:
    paths = dict.fromkeys([*USED[name], "bands", "value_range", "resources"])
    return [leaf for path in paths for leaf in _leaves(part_at(settings, path), path)]


def _another(settings: Settings, path: str, number: int) -> Any:
    """An allowed value that a setting does not have; ``number`` makes fractions differ from each other."""
    parent, _, name = path.rpartition(".")
    holder = part_at(settings, parent) if parent else settings
    value, hint = getattr(holder, name), get_type_hints(type(holder))[name]
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    if name in ("num_rounds", "radius", "min_workers"):
        return value + 1
    if value == ():
        return (0.5, 7.0) if hint == tuple[float, ...] else (2, 0, 1)
    if isinstance(value, tuple):
        return tuple(_moved(one, number) for one in value)
    return _moved(value, number)


def _moved(value: Any, number: int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 40
    return value / 2 + 0.01 + number / 10_000 if isinstance(value, float) else f"{value}-{number}"


def _arguments(path: str, value: Any) -> list[str]:
    parent, _, name = path.replace("_", "-").rpartition(".")
    dot = "." if parent else ""
    if isinstance(value, bool):
        return [f"--{parent}{dot}{'' if value else 'no-'}{name}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{parent}{dot}{name}", *map(str, values)]


@pytest.mark.parametrize("job", MAIN_OPTIONS)
def test_help_ends_well_and_names_the_main_options(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = MAIN_OPTIONS[job][1]
    shown = _help(job, capsys)
    common = ["--out"] if job in WITHOUT_PRESET else ["--out", "--preset", "--config"]
    for option in [*common, *options]:
        assert option in shown
    assert max(map(len, shown.splitlines()[1:])) <= 80
    assert "(default: '')" not in shown  # a stranger reads that as a value
    _, *entries = re.split(r"\n[│ ] (?=-)", shown)  # with a box, or without one where the screen has no such letters
    needed = {entry.split()[0] for entry in entries if "(required)" in entry}
    assert set(re.findall(r"--[\w-]+", shown.partition("Required: ")[2].partition(".\n")[0])) == needed


@pytest.mark.parametrize("job", USED)
def test_help_offers_the_settings_that_the_job_uses_and_no_other(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = _help(job, capsys)
    expected = {f"--{leaf.replace('_', '-')}" for leaf in _used_leaves(job, preset("small"))}
    offered = set(re.findall(r"(?m)^[│ ]+(--[a-z-]+(?:\.[a-z-]+)+|--val-fraction|--bands|--value-range)", shown))
    negated = re.compile(r"(--(?:.*\.)?)no-(?=[a-z-]+$)")
    assert {negated.sub(r"\1", option) for option in offered} == expected


@pytest.mark.parametrize("job", USED)
def test_every_value_travels_to_its_own_leaf(job: str) -> None:
    small = preset("small")
    expected, arguments = small, _needed(job)
    for number, path in enumerate(_used_leaves(job, small)):
        value = _another(small, path, number)
        assert value != part_at(small, path), path
        expected = with_part(expected, path, value)
        arguments += _arguments(path, value)
    found = parse(_job(job)[0], arguments).settings
    assert found == expected
    assert found != small


def test_settings_that_a_job_does_not_use_come_from_preset_and_file_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"walk": {"beta": 3.0}, "cam": {"stride": 32}}}))
    options = parse(_job("export")[0], [*_needed("export"), "--preset=paper", f"--config={tmp_path / 'run.json'}"])
    paper = preset("paper")
    expected = with_part(with_part(paper, "walk.beta", 3.0), "cam.stride", 32)
    assert options.settings == expected


def test_help_shows_the_defaults_of_the_preset_and_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"walk": {"beta": 3.25}}}))

    def defaults(*more: str) -> dict[str, str]:
        found = re.findall(r"--(walk\.(?:alpha|beta)) .*?\(default: (\S+)\)", _help("label", capsys, *more), re.DOTALL)
        return dict(found)

    assert defaults() == {"walk.alpha": "3.0", "walk.beta": "8.0"}
    assert defaults("--preset=paper") == {"walk.alpha": "16.0", "walk.beta": "8.0"}
    config = f"--config={tmp_path / 'run.json'}"
    assert defaults("--preset=paper", config) == {"walk.alpha": "16.0", "walk.beta": "3.25"}


def test_list_of_one_option_may_stand_before_another() -> None:
    options = parse(Run, ["--data=m", "--cam.training.long-side-px", "64", "96", "--out=o", "--cam.backbone=resnet50"])
    small = preset("small")
    expected = with_part(with_part(small, "cam.training.long_side_px", (64, 96)), "cam.backbone", "resnet50")
    assert options.settings == expected


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--cam.training.crop-px", "31"], "--cam.training.crop-px must be 32 or more, got 31"),
        (["--cam.stride", "7"], "invalid choice '7' for argument '--cam.stride'"),
        (["--cam.training.optimizer", "adam"], "invalid choice 'adam' for argument '--cam.training.optimizer'"),
        (["--cam.training.long-side-px", "64"], "Missing value for argument '--cam.training.long-side-px'."),
        (["--resources.num-workers", "0"], "--resources.num-workers must be 1 or more, got 0"),
        (["--seed.crf.num-iterations", "-1"], "--seed.crf.num-iterations must be 0 or more, got -1"),
        (["--affinity.training.crop-px", "100"], "--affinity.training.crop-px must be a multiple of grid_stride 8"),
        (["--rounds.num-rounds", "10"], "--rounds.num-rounds must be 1 to 9, got 10"),
        (["--val-fraction", "1"], "--val-fraction must be from 0 (none) to below 1, got 1.0"),
        (["--segmentation.min-confidence", "2"], "--segmentation.min-confidence must be from 0 to 1, got 2.0"),
        (["--later-walk.alpha", "0"], "--later-walk.alpha must be above 0, got 0.0"),
    ],
)
def test_mistake_in_a_setting_names_the_whole_option(arguments: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Run, ["--data=m", "--out=o", *arguments])
    said = message_of(refused.value)
    assert said.startswith(line)
    assert len(said.splitlines()) == 1
