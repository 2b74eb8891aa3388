"""The whole chain as one job, and its report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine import progress
from engine.config import RoundsConfig
from engine.errors import ConfigError, OtherRunError, OutputError, StorageError, UserError
from engine.plain_settings import merged, part_at, with_part
from engine.presets import preset
from engine.runs.images import ImageSet
from engine.runs.options import JobOptions, Uses
from engine.runs.output import run_record
from engine.runs.stage_scores import score_rounds, stages_of
from engine.storage.run_record import read_record
from engine.storage.weights import weights_hash
from jobs import report, run
from jobs.cli.command import parse
from tests.engine.runs.examples import options_for
from tests.jobs.conftest import Chain
from tests.jobs.small_runs import CHAIN_SETTINGS, NUM_SCENES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_ray")]  # all but the chain
STAGES = ["cam", "walk", "crf", "segmentation"]


@pytest.fixture(scope="module")
def config(chain: Chain) -> run.Run:
    """Of the finished run, whose folder no test changes."""
    return chain.config


@pytest.fixture
def again(chain: Chain, tmp_path: Path) -> run.Run:
    """The same with a copy of the folder, to run again."""
    return replace(chain.config, out=shutil.copytree(chain.config.out, str(tmp_path / "again")))


@pytest.fixture(scope="module")
def summary(chain: Chain) -> dict[str, Any]:
    return chain.summary


def test_every_stage_is_scored_on_every_image(config: run.Run, summary: dict[str, Any]) -> None:
    assert summary["scored_images"] == summary["images"] == NUM_SCENES
    assert summary["images"] == NUM_SCENES
    assert summary["errors"] == {}
    assert list(summary["miou"]) == list(summary["iou"]) == STAGES
    assert all(0 <= value <= 1 for value in summary["miou"].values())
    assert json.loads((Path(config.out) / "summary.json").read_text()) == summary
    evaluation = json.loads((Path(config.out) / "masks" / ".tag2mask" / "evaluation.json").read_text())
    assert evaluation["miou"] == summary["miou"]["crf"]
    assert evaluation["images"] == NUM_SCENES


def test_second_round_labels_from_the_network_of_the_first(config: run.Run, summary: dict[str, Any]) -> None:
    out = Path(config.out)
    first, second = summary["rounds"]
    assert summary["miou"]["cam"] == first["miou"]["cam"]
    assert [summary["miou"][stage] for stage in ("walk", "crf")] == [second["miou"][stage] for stage in ("walk", "crf")]
    records = {name: read_record(str(out / name)) or {} for name in ("round-1/masks", "masks")}
    assert records["round-1/masks"]["inputs"]["cam"] == weights_hash(str(out / "cam"))
    assert records["masks"]["inputs"]["cam"] == weights_hash(str(out / "round-1" / "segmentation"))
    parts = {name: set(record["settings"]) for name, record in records.items()}
    assert parts["round-1/masks"] - parts["masks"] == {"cam", "walk"}
    assert parts["masks"] - parts["round-1/masks"] == {"later_maps", "later_walk"}


def test_last_network_of_several_is_trained_longer() -> None:
    def epochs(num_rounds: int, factor: float) -> list[int]:
        settings = with_part(CHAIN_SETTINGS, "segmentation.training.num_epochs", 8)
        settings = replace(settings, rounds=RoundsConfig(num_rounds=num_rounds, last_epoch_factor=factor))
        return [
            run._settings_of_round(number, settings).segmentation.training.num_epochs
            for number in range(1, num_rounds + 1)
        ]

    assert epochs(3, 1.5) == [8, 8, 12]
    assert epochs(1, 1.5) == [8]
    assert epochs(2, 0.625) == [8, 5]
    assert epochs(2, 0.01) == [8, 1]


def test_report_shows_scores_and_pictures_and_needs_no_network(config: run.Run, summary: dict[str, Any]) -> None:
    page = (Path(config.out) / "report.html").read_text()
    assert page.count("data:image/") >= NUM_SCENES
    assert "classes with fewer than 50 images" in page
    assert f"{100 * summary['miou']['walk']:.1f}" in page
    assert "http://" not in page
    assert "https://" not in page


def test_report_without_truth_or_photographs_is_still_written(
    config: run.Run, summary: dict[str, Any], tmp_path: Path
) -> None:
    moved = tmp_path / "manifest.csv"
    moved.write_bytes(Path(config.data).read_bytes())  # without the images beside it
    made = report.run(report.Report(data=str(moved), masks=f"{config.out}/masks", out=str(tmp_path)))
    assert "tag2mask" in Path(made["report"]).read_text()


def test_second_run_skips_every_step(again: run.Run, summary: dict[str, Any]) -> None:
    out = Path(again.out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.*") if path.is_file()}
    second = run.run(again)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert second["miou"] == summary["miou"]
    assert second["findings"] == summary["findings"]
    assert [one["kind"] for one in second["findings"]] == ["few images"]
    files = {name: "inspection.json" if name == "inspection" else "summary.json" for name in second["steps"]}
    done = {name: (read_record(str(out / name), file) or {})["seconds"] for name, file in files.items()}
    assert second["steps"] == done  # those of the work, not of finding it done
    assert min(seconds for name, seconds in done.items() if name != "inspection") > 0.1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutputError("'summary.json' cannot be written: no space left on device"), [False]),
        (OtherRunError("contains the output of another run", thing="out"), [False, True]),
    ],
)
def test_overwrite_keeps_finished_work_when_the_disk_fails(
    error: OutputError, expected: list[bool], tmp_path: Path
) -> None:
    tried: list[bool] = []
    options = options_for("m.csv", tmp_path)

    def job(chosen: JobOptions, images: ImageSet) -> dict[str, Any]:
        tried.append(chosen.overwrite)
        raise error

    steps = run._Steps(
        ImageSet(options), progress.Chain("run", [progress.Planned(name="masks", kind="masks")]), overwrite=True
    )
    with pytest.raises(OutputError, match=str(error)):
        steps.do("masks", job, options)
    assert tried == expected


def test_changed_setting_is_refused_and_with_overwrite_only_what_it_touches_is_done_again(
    again: run.Run,
) -> None:
    out = Path(again.out)
    with pytest.raises(OutputError, match=r"walk\.alpha: 2\.0 -> 3\.0"):
        run.run(replace(again, settings=with_part(again.settings, "walk.alpha", 3.0)))
    other = replace(again, settings=with_part(again.settings, "segmentation.inference.long_side_px", 64))
    with pytest.raises(OutputError, match=r"long_side_px: 96 -> 64"):
        run.run(other)
    kept = [*out.glob("*/weights.safetensors"), *out.glob("masks/*.parquet"), *out.glob("seeds/*.parquet")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) == 3 + 3 + 3
    run.run(replace(other, overwrite=True))
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    record = read_record(str(out / "segmented"))
    assert record is not None
    assert record["settings"]["segmentation"]["inference"]["long_side_px"] == 64


def test_truth_that_comes_later_scores_what_the_masks_hold(config: run.Run, tmp_path: Path) -> None:
    late = replace(config, out=str(tmp_path / "late"))
    assert run._keeps_stages(f"{late.out}/masks", late)
    assert not run._keeps_stages(f"{late.out}/masks", replace(late, truth=""))
    for folder in ("round-1/masks", "masks", "segmented"):
        shutil.copytree(Path(config.out) / folder, Path(late.out) / folder)
    for shard in Path(late.out).glob("**/masks/*.parquet"):
        pq.write_table(pq.read_table(shard).drop_columns(["mask_cam", "mask_walk"]), shard)
    record = Path(late.out, "masks", ".tag2mask", "run.json")
    record.write_text(record.read_text().replace('"keep_stages": "True"', '"keep_stages": "False"'))
    assert not run._keeps_stages(f"{late.out}/masks", late)
    assert run._keeps_stages(f"{late.out}/round-1/masks", replace(late, truth=""))
    folders = [f"{late.out}/round-1/masks", f"{late.out}/masks"]
    summary, scores = score_rounds(folders, f"{late.out}/segmented", late.truth)
    assert list(scores) == [folders[-1], f"{late.out}/segmented"]
    assert list(summary["miou"]) == ["crf", "segmentation"]
    assert list(stages_of(summary)["iou"]) == ["crf", "dCRF 2", "segmentation"]


def test_what_is_there_of_the_masks_decides_only_where_it_can(config: run.Run, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "run.json").write_text('{"job": "label", "inputs": {"keep_stages": "False"}}')
    assert run._keeps_stages(str(folder), config)  # killed before its first shard
    (folder / "run.json").write_text("{")
    assert run._keeps_stages(str(folder), config)


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        ("affinity", {"backbone": "nonsense"}, "nonsense"),
        ("segmentation", {"weights": "nowhere.safetensors", "backbone": "resnet18"}, "nowhere"),
    ],
)
def test_mistake_in_a_later_network_is_said_before_the_first_is_trained(
    config: run.Run, tmp_path: Path, network: str, changes: dict[str, Any], words: str
) -> None:
    wrong = with_part(config.settings, network, replace(part_at(config.settings, network), **changes))
    with pytest.raises(UserError, match=words):
        run.run(replace(config, out=str(tmp_path / "out"), settings=wrong))
    assert not (tmp_path / "out" / "cam").exists()


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_record_of_a_run_gives_the_same_run_again_whatever_the_preset(name: str, tmp_path: Path) -> None:
    needed = ["--data", "m.csv", "--out", "out"]
    more = ["--segmentation.min-confidence", ".5", "--val-fraction", "0.1", "--walk.beta", "7"]
    first = parse(run.Run, [*needed, "--preset", name, *more, "--resources.num-workers=5"])
    path = tmp_path / "run.json"
    record = run_record("run", first, uses=Uses.everything().result_paths, inputs={}, class_names=("cat",))
    path.write_text(json.dumps(record))
    again = parse(run.Run, [*needed, "--config", str(path)])
    resources = again.settings.resources
    assert resources.num_workers == 1  # this machine's, not those of the run before
    assert again.settings == replace(first.settings, resources=resources)
    assert run._starts_from_cam(again.settings) == run._starts_from_cam(first.settings) == (name == "tiny")
    more_rounds = parse(run.Run, [*needed, "--config", str(path), "--rounds.num-rounds", "3"])
    assert more_rounds.settings.rounds == replace(first.settings.rounds, num_rounds=3)
    record["settings"]["rounds"]["num_rounds"] = "many"
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"^rounds\.num_rounds must be a whole number, got 'many' \(--config .*\)$"):
        parse(run.Run, [*needed, "--config", str(path)])


def test_run_json_holds_all_settings_but_the_resources(chain: Chain) -> None:
    record = json.loads((Path(chain.config.out) / "run.json").read_text())
    assert (record["job"], record["options"]["truth"]) == ("run", chain.config.truth)
    settings = merged(preset("paper"), record["settings"], where="run.json")
    assert settings == replace(chain.config.settings, resources=preset("paper").resources)


def test_truth_that_does_not_exist_is_said_before_the_training(config: run.Run, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^truth '.*nothing'"):
        run.run(replace(config, truth=str(tmp_path / "nothing"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "cam").exists()
