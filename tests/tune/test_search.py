"""The search on a few scenes, held against jobs.label and jobs.evaluate; what an interrupted one leaves behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from engine.errors import ConfigError, OutputError, StorageError
from engine.presets import preset
from engine.stages.networks import Architecture, build_pretrained, save_network
from jobs import evaluate, label, make_scenes
from jobs.command import main, parse
from tune import search

NUM_SCENES, NUM_TRUE = 14, 11
SIGHT = ("--cam.inference.long-side-px", "96", "--cam.inference.scales", "1.0")
SPACE = ("--alphas", "0.7", "1.3", "4", "--betas", "1.5", "9", "--steps", "0", "5", "90")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, truth of some of them, and two networks that have learned nothing."""
    root = tmp_path_factory.mktemp("search")
    make_scenes.run(make_scenes.MakeScenes(out=str(root / "scenes"), num_images=NUM_SCENES, width=104, height=96))
    (root / "truth").mkdir()
    for mask in sorted((root / "scenes" / "truth").glob("*.png"))[:NUM_TRUE]:
        shutil.copy(mask, root / "truth")
    names = tuple((root / "scenes" / "classes.txt").read_text().split())
    torch.manual_seed(0)
    tiny = preset("tiny")
    for kind, config in (("cam", tiny.cam), ("affinity", tiny.affinity)):
        small: Any = replace(config, backbone="mobilenetv3_small_050", weights="random")  # type: ignore[type-var]
        architecture = Architecture.of(small, names)
        save_network(str(root / kind), architecture, build_pretrained(architecture, "random").state_dict())
    return root


def _arguments(root: Path, out: str, *more: str) -> list[str]:
    shared = ["--preset", "tiny", "--data", str(root / "scenes" / "manifest.csv"), "--truth", str(root / "truth")]
    networks = ["--cam", str(root / "cam"), "--affinity", str(root / "affinity"), "--cache", str(root / "cache")]
    return [*shared, *networks, "--out", str(root / out), *SIGHT, "--affinity.inference.long-side-px", "96", *more]


def _search(root: Path, out: str, *more: str) -> dict[str, Any]:
    return search.run(parse(search.Search, _arguments(root, out, *more)))


def _labeled_miou(root: Path, out: str, *more: str) -> float:
    """What jobs.label and jobs.evaluate give."""
    networks = ["--cam", str(root / "cam"), "--affinity", str(root / "affinity")]
    shared = ["--preset", "tiny", "--data", str(root / "scenes" / "manifest.csv"), "--out", str(root / out)]
    label.run(parse(label.Label, [*shared, *networks, "--crf.num-iterations", "0", *more]))
    result = evaluate.score(str(root / out), str(root / "truth"))
    assert result["images"] == NUM_TRUE
    return float(result["miou"])


def _rows(root: Path, out: str) -> list[dict[str, Any]]:
    return pq.read_table(root / out / "results.parquet").to_pylist()


@pytest.fixture(scope="module")
def found(folder: Path, ray_session: None) -> dict[str, Any]:
    return _search(folder, "found", *SPACE)


@pytest.mark.slow
def test_every_configuration_is_a_row_and_the_best_is_the_first(folder: Path, found: dict[str, Any]) -> None:
    rows = _rows(folder, "found")
    assert len(rows) == 3 * (1 + 2 * 2) + 1  # without a walk beta means nothing; and the default
    assert len({(row["alpha"], row["beta"], row["num_steps"]) for row in rows}) == len(rows)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(first["miou"] >= second["miou"] for first, second in pairwise(rows))
    assert all(row["complete"] and row["images"] == NUM_TRUE for row in rows)
    assert all(row["miou_low"] <= row["miou_high"] for row in rows)
    assert rows[0]["tied_with_best"]
    assert found["miou"] == rows[0]["miou"]
    assert [row["miou"] for row in rows if row["default"]] == [found["miou_default"]]
    assert found["miou_cross_validated"] <= found["miou"] + 0.05
    assert found["images"] == NUM_TRUE
    for name in ("miou.svg", "classes.svg"):
        assert (folder / "found" / name).read_text().startswith("<svg")


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [0, 5, 90])
def test_figure_is_that_of_label_and_evaluate(folder: Path, found: dict[str, Any], num_steps: int) -> None:
    row = next(
        row
        for row in _rows(folder, "found")
        if row["num_steps"] == num_steps and row["alpha"] == 1.3 and row["beta"] == (9 if num_steps == 90 else 1.5)
    )
    walk = ("--walk.alpha", "1.3", "--walk.beta", str(row["beta"]), "--walk.num-steps", str(num_steps))
    sight = (*SIGHT, "--affinity.inference.long-side-px", "96")
    assert row["miou"] == pytest.approx(_labeled_miou(folder, f"masks-{num_steps}", *walk, *sight), abs=1e-3)


@pytest.mark.slow
def test_best_json_is_taken_by_label_and_gives_its_figure(folder: Path, found: dict[str, Any]) -> None:
    miou = _labeled_miou(folder, "masks-best", "--config", str(folder / "found" / "best.json"))
    assert miou == pytest.approx(found["miou"], abs=1e-3)


@pytest.mark.slow
def test_search_that_was_stopped_half_way_ends_as_an_undisturbed_one(folder: Path, found: dict[str, Any]) -> None:
    out = folder / "found"
    results, best = ((out / name).read_bytes() for name in ("results.parquet", "best.json"))
    states = sorted((out / ".tag2mask" / "trials").iterdir())
    states[0].unlink()  # a trial that had not begun
    kept = states[1].stat().st_mtime_ns
    shard = sorted(next((folder / "cache").iterdir()).glob("*.parquet"))[0]
    before = shard.read_bytes()
    shard.unlink()  # and a shard that the networks had not seen
    _search(folder, "found", *SPACE)
    assert (out / "best.json").read_bytes() == best
    assert (out / "results.parquet").read_bytes() == results
    assert states[1].stat().st_mtime_ns == kept
    assert shard.read_bytes() == before


@pytest.mark.slow
def test_other_space_in_the_same_folder_is_refused_and_another_folder_uses_the_cache_again(
    folder: Path, found: dict[str, Any]
) -> None:
    with pytest.raises(OutputError, match=r"search\.alphas"):
        _search(folder, "found", *SPACE, "--alphas", "2")
    files = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    more = ("--search", "random", "--num-betas", "2", "--early-stopping", "--top-k-crf", "1")
    summary = _search(folder, "other", *SPACE, *more, "--crf.num-iterations", "2")
    assert files == {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    rows = _rows(folder, "other")
    assert [row["crf"] for row in rows[:2]] == [True, False]
    assert summary["settings"]["crf"]["num_iterations"] == 2
    crf = ("--crf.num-iterations", "2")
    labeled = _labeled_miou(folder, "masks-crf", "--config", str(folder / "other" / "best.json"), *crf)
    assert summary["miou"] == pytest.approx(labeled, abs=1e-3)


def test_mistakes_are_said_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--alphas is 0 1; allowed: one or more numbers above 0"):
        parse(search.Search, _arguments(folder, "wrong", "--alphas", "0", "1"))
    with pytest.raises(StorageError, match="truth"):
        _search(folder, "wrong", "--truth", str(folder / "cam"))
    assert main(search.Search, search.run, _arguments(folder, "wrong", "--folds", "1")) == 2
    assert "--folds" in capsys.readouterr().err
    assert not (folder / "wrong").exists()
