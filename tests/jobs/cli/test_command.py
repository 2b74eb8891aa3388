"""From a command line to a job's options, and to an exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, ManifestError, TooManyErrors
from engine.presets import preset
from engine.runs.output import run_record
from jobs.cli.command import main, one_line, parse
from jobs.export import Export
from jobs.label import Label
from jobs.train_cam import TrainCam

LABEL = ["--data", "m.csv", "--out", "out", "--cam", "c", "--affinity", "a"]
TRAIN = ["--data", "m.csv", "--out", "out"]


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
    walk = replace(paper.walk, beta=3.0, alpha=7.0)
    cam = replace(paper.cam, inference=replace(paper.cam.inference, scales=(2.0,)))
    assert config.settings == replace(paper, walk=walk, cam=cam)
    assert (config.out, config.cam, config.affinity, config.preset) == ("out", "c", "a", "paper")


@pytest.mark.parametrize(
    ("names", "beta"),
    [
        ([".tag2mask/run.json"], 1.0),  # mask shards
        (["run.json", ".tag2mask/manifest.json"], 1.0),  # a network, a whole run
        (["run.json", "best.json"], 2.0),  # a search, whose run.json holds what it started from
        ([".tag2mask/run.json", ".tag2mask/calibration.json"], 1.0),
        (["evaluation.json", "calibration.json"], 2.0),
    ],
)
def test_folder_is_taken_for_the_record_in_it(names: list[str], beta: float, tmp_path: Path) -> None:
    (tmp_path / ".tag2mask").mkdir()
    for number, name in enumerate(names, start=1):
        (tmp_path / name).write_text(json.dumps({"settings": {"walk": {"beta": number}}}))
    assert parse(Label, [*LABEL, "--config", str(tmp_path)]).settings.walk.beta == beta
    with pytest.raises(ConfigError, match=r"^config '.*/none' does not exist; .* or a folder with one$"):
        parse(Label, [*LABEL, "--config", str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*LABEL, "--wlak.alpha", "3"], "Unrecognized options: --wlak.alpha, 3; did you mean --walk.alpha?"),
        ([*LABEL, "--walk.alpha", "much"], "--walk.alpha: "),
        ([*LABEL, "--walk.alpha", "-1"], "--walk.alpha must be above 0, got -1.0"),
        ([*LABEL, "--walk.num-steps", "2.5"], "--walk.num-steps: "),
        (
            [*LABEL, "--cam.inference.scales", "0"],
            "--cam.inference.scales must be one or more numbers above 0, up to 8",
        ),
        (
            [*LABEL, "--cam.inference.long-side-px", "7"],
            "--cam.inference.long-side-px must be 0 (the original size)",
        ),
        ([*LABEL, "--shards.rows-per-shard", "0"], "--shards.rows-per-shard must be 1 to 100000, got 0"),
        ([*LABEL, "--preset", "huge"], "invalid choice 'huge' for argument '--preset'."),
        ([*LABEL, "--preset"], "Missing value for argument '--preset'."),
        (
            [*LABEL, "--config", "/nowhere/run.json"],
            "--config '/nowhere/run.json' does not exist; give one of best.json",
        ),
        ([*LABEL, "--max-error-fraction", "2"], "--max-error-fraction must be from 0 to 1, got 2.0"),
        ([*LABEL, "--max-pixels", "0"], "--max-pixels must be 1 or more, got 0"),
        (["--wlak.alpha", "3"], "unrecognized option --wlak.alpha; see --help"),
        (LABEL[2:], "missing --data; see --help"),
        (LABEL[:4], "missing --cam; see --help"),
        ([], "missing --out, --data, --cam; see --help"),
    ],
)
def test_mistake_is_one_line_that_names_the_option(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(Label, lambda _: {}, arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")
    assert not set(said) & set("│╭╰")
    assert len(said) < 300


@pytest.mark.parametrize(
    "complaint",
    [
        "╭─ Parsing error ──────────╮\n│ Error parsing --walk.alpha: no   │\n│ number: 'much'  │\n╰──────────╯\n",
        "Parsing error -----------\nError parsing --walk.alpha: no\nnumber: 'much'\n-------------------------\n",
    ],
    ids=["box", "terminal without letters for a box"],
)
def test_complaint_of_tyro_is_one_sentence(complaint: str) -> None:
    assert one_line(complaint) == "--walk.alpha: no number: 'much'; see --help"


def test_record_of_any_job_is_a_config_file_though_it_knows_options_of_its_own(tmp_path: Path) -> None:
    exported = parse(Export, ["--data=m.csv", "--out=out", "--masks=m", "--format=voc", "--val-fraction=0.25"])
    own = {"format": "voc", "min_confidence": "0.5"}
    record = run_record("export", exported, uses=("val_fraction",), inputs=own, class_names=("cat",))
    (tmp_path / "run.json").write_text(json.dumps(record))
    config = parse(TrainCam, [*TRAIN, "--config", str(tmp_path / "run.json")])
    assert config.settings == replace(preset("small"), val_fraction=0.25)


def test_job_starts_from_the_settings_of_its_networks_and_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = preset("tiny")
    trained = TrainCam(out=str(tmp_path), data="m.csv", settings=tiny)
    record = run_record("train_cam", trained, uses=("cam.training",), inputs={}, class_names=("cat",))
    (tmp_path / "run.json").write_text(json.dumps(record))
    arguments = ["--data=m.csv", "--out=out", "--cam", str(tmp_path), "--affinity=a"]
    assert parse(Label, arguments).settings == tiny
    assert capsys.readouterr().err == f"settings: from {tmp_path} and a\n"

    changed = parse(Label, [*arguments, "--walk.alpha=7", "--resources.num-workers=2"])
    assert changed.settings.walk == replace(tiny.walk, alpha=7.0)
    assert capsys.readouterr().err == f"settings: from {tmp_path} and a, except walk.alpha: 2.0 -> 7.0\n"

    assert parse(Label, [*arguments, "--preset=small"]).settings == preset("small")
    said = capsys.readouterr().err
    assert "; cam.inference.long_side_px: 240 -> 512; " in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "holds no JSON object"),
        ("{}", "has no settings"),
        ('{"settings": {"walk": {"gamma": 1}}}', "error: --walk.gamma is not a setting (--config "),
        ('{"settings": {"walk": {"beta": -1.0}}}', "error: --walk.beta must be above 0, got -1.0 (--config "),
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
        (ManifestError("is odd", thing="data"), 2, "error: --data is odd"),
        (TooManyErrors("9 of 10 images ended in an error"), 1, "failed: 9 of 10 images ended in an error"),
        (KeyboardInterrupt(), 130, "interrupted: "),
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
    assert err.startswith(words)
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
