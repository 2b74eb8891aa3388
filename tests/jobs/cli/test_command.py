"""From a command line to a job's options, and to an exit status."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import CamConfig
from engine.errors import ConfigError, ManifestError, TooManyErrors
from engine.presets import preset
from jobs.cli.command import main, parse
from jobs.label import Label
from jobs.train_cam import TrainCam

LABEL = ["--data", "m.csv", "--out", "out", "--cam", "c", "--affinity", "a"]
TRAIN = ["--data", "m.csv", "--out", "out"]

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
    "run": ("Run", ["--data", "--truth", "--cam.backbone", "--walk.alpha", "--segmentation.backbone"]),
}

WITHOUT_SETTINGS = "import", "export_network", "make_scenes"


@pytest.mark.parametrize("job", MAIN_OPTIONS)
def test_help_ends_well_and_names_the_main_options(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(f"jobs.{job}")
    name, options = MAIN_OPTIONS[job]
    with pytest.raises(SystemExit) as stop:
        main(getattr(module, name), module.run, ["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    common = ["--out"] if job in WITHOUT_SETTINGS else ["--out", "--preset", "--config"]
    for option in [*common, *options]:
        assert option in shown
    assert max(map(len, shown.splitlines()[1:])) <= 80
    assert "(default: '')" not in shown  # a stranger reads that as a value
    _, *entries = re.split(r"\n[│ ] (?=-)", shown)  # with a box, or without one where the screen has no such letters
    needed = {entry.split()[0] for entry in entries if "(required)" in entry}
    assert set(re.findall(r"--[\w-]+", shown.partition("Needed: ")[2].partition(".\n")[0])) == needed


def test_help_may_lose_its_reader() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.check_tags", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_single_settings_beat_the_config_file_and_that_beats_the_preset(tmp_path: Path) -> None:
    record = {"job": "label", "settings": {"walk": {"beta": 3, "alpha": 5.0}, "cam": {"inference": {"scales": [2.0]}}}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    arguments = [*LABEL, "--preset", "paper", "--config", str(tmp_path / "run.json"), "--walk.alpha", "7"]
    config = parse(Label, arguments)
    paper = preset("paper")
    assert config.walk == replace(paper.walk, beta=3.0, alpha=7.0)
    assert config.cam_inference == replace(paper.cam.inference, scales=(2.0,))
    assert config.crf == paper.crf
    assert (config.out, config.cam, config.affinity, config.preset) == ("out", "c", "a", "paper")


def test_setting_of_a_preset_is_changed_alone() -> None:
    arguments = [*TRAIN, "--cam.training.long-side-px", "64", "96", "--preset=tiny", "--cam.backbone", "resnet50"]
    config = parse(TrainCam, arguments)
    tiny = preset("tiny").cam
    training = replace(tiny.training, long_side_px=(64, 96))
    assert config.cam_network == replace(tiny, backbone="resnet50", training=training)
    assert isinstance(config.cam_network, CamConfig)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*LABEL, "--wlak.alpha", "3"], "--wlak.alpha"),
        ([*LABEL, "--walk.alpha", "much"], "--walk.alpha"),
        ([*LABEL, "--walk.alpha", "-1"], "--walk.alpha"),
        ([*LABEL, "--walk.num-steps", "2.5"], "--walk.num-steps"),
        pytest.param([*LABEL, "--cam.inference.scales", "0"], "--cam.inference.scales"),
        pytest.param([*LABEL, "--cam.inference.long-side-px", "7"], "--cam.inference.long-side-px"),
        ([*LABEL, "--shards.rows-per-shard", "0"], "--shards.rows-per-shard"),
        ([*LABEL, "--preset", "huge"], "--preset"),
        ([*LABEL, "--preset"], "--preset"),
        ([*LABEL, "--config", "/nowhere/run.json"], "--config"),
        ([*LABEL, "--max-error-fraction", "2"], "--max-error-fraction"),
        ([*LABEL, "--max-pixels", "0"], "--max-pixels"),
        (LABEL[2:], "--data"),
        (LABEL[:4], "--cam"),
    ],
)
def test_mistake_is_one_line_that_names_the_option(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Label, arguments)
    text = str(refused.value)
    assert named in text
    assert len(text.splitlines()) == 1
    assert not set(text) & set("│╭╰")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["--cam.training.crop-px", "31"], "--cam.training.crop-px"),
        (["--cam.stride", "7"], "--cam.stride"),
        (["--cam.training.optimizer", "adam"], "--cam.training.optimizer"),
        (["--cam.training.long-side-px", "64"], "--cam.training.long-side-px"),
        (["--resources.num-workers", "0"], "--resources.num-workers"),
    ],
)
def test_mistake_in_a_network_is_one_line_that_names_the_option(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(TrainCam, [*TRAIN, *arguments])
    assert named in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_record_of_any_job_is_a_config_file_though_it_knows_options_of_its_own(tmp_path: Path) -> None:
    settings = {"walk": {"beta": 3.0}, "min_confidence": 0.5, "format": "voc", "search": {"alphas": [1.0]}}
    (tmp_path / "run.json").write_text(json.dumps({"job": "search", "settings": settings}))
    assert parse(Label, [*LABEL, "--config", str(tmp_path / "run.json")]).walk.beta == 3.0
    (tmp_path / "own.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(ConfigError, match="there is no setting 'min_confidence'"):
        parse(Label, [*LABEL, "--config", str(tmp_path / "own.json")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "holds no JSON object"),
        ("{}", "has no settings"),
        ('{"settings": {"walk": {"gamma": 1}}}', "no setting 'walk.gamma'"),
        ('{"settings": {"walk": {"beta": -1.0}}}', "beta is -1"),
    ],
)
def test_config_file_that_cannot_be_used_is_the_users_mistake(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    assert main(Label, lambda _: {}, [*LABEL, "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_value_of_a_config_file_that_is_not_allowed_is_said_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"settings": {"walk": {"beta": -1.0}}}')
    main(Label, lambda _: {}, [*LABEL, "--config", str(path)])
    assert "old.json" in capsys.readouterr().err


def test_file_that_cannot_be_written_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Label) -> dict[str, Any]:
        raise OSError(28, "'/out/table.parquet' cannot be written (No space left on device)")

    assert main(Label, fail, LABEL) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "'/out/table.parquet' cannot be written (No space left on device)" in said

    def leave(_: Label) -> dict[str, Any]:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        main(Label, leave, LABEL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nap:
    """A job of no work."""

    length_s: float = 1.0
    """How long."""


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (None, 0, ""),
        (ManifestError("--data is odd"), 2, "error: --data is odd"),
        (TooManyErrors("9 of 10 images ended in an error"), 1, "failed: 9 of 10 images ended in an error"),
        (KeyboardInterrupt(), 1, "interrupted: "),
    ],
)
def test_exit_status_follows_what_happened(
    outcome: BaseException | None, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Nap) -> dict[str, Any]:
        assert config.length_s == 3
        if outcome is not None:
            raise outcome
        return {}

    assert main(Nap, run, ["--length-s", "3"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == (1 if words else 0)


def test_mistake_on_the_command_line_ends_with_status_2_before_the_job_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(config: Nap) -> dict[str, Any]:
        raise AssertionError("started")

    assert main(Nap, run, ["--length", "3"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "--length" in err
