"""The search on a few scenes, held against jobs.label and jobs.evaluate; what an interrupted one leaves behind."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.errors import OutputError, TooManyErrors
from engine.runs.evaluation import score
from jobs import label, make_seeds
from jobs.cli.command import parse
from tests.engine.storage.sources.examples import tar_bytes
from tests.tune.conftest import NUM_TRUE, SIGHT, SPACE, arguments
from tune import search

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_ray")]


def _search(root: Path, out: str, *more: str) -> dict[str, Any]:
    return search.run(parse(search.Search, arguments(root, out, *more)))


def _labeled_miou(root: Path, out: str, *more: str) -> float:
    """What jobs.label and jobs.evaluate give."""
    networks = ["--cam", str(root / "cam"), "--affinity", str(root / "affinity")]
    shared = ["--preset", "tiny", "--data", str(root / "scenes" / "manifest.csv"), "--out", str(root / out)]
    label.run(parse(label.Label, [*shared, *networks, "--crf.num-iterations", "0", *more]))
    result = score(str(root / out), str(root / "truth"))
    assert result["images"] == NUM_TRUE
    return float(result["miou"])


def _own_cache(root: Path, name: str) -> tuple[str, str]:
    """An option; what is cached already is in it, and what is added does not concern the other tests."""
    shutil.copytree(root / "cache", root / f"cache-{name}")
    return "--cache", str(root / f"cache-{name}")


def _rows(root: Path, out: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(root / out / "results.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return _search(folder, "found", *SPACE)


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
        assert "<svg" in (folder / "found" / name).read_text()


@pytest.mark.parametrize("num_steps", [0, 5, 90])
def test_figure_is_that_of_label_and_evaluate(folder: Path, found: dict[str, Any], num_steps: int) -> None:
    row = next(
        row
        for row in _rows(folder, "found")
        if row["num_steps"] == num_steps and row["alpha"] == 1.3 and row["beta"] == (9 if num_steps == 90 else 1.5)
    )
    walk = ("--walk.alpha", "1.3", "--walk.beta", str(row["beta"]), "--walk.num-steps", str(num_steps))
    assert row["miou"] == pytest.approx(_labeled_miou(folder, f"masks-{num_steps}", *walk, *SIGHT), abs=1e-3)


def test_best_json_is_taken_by_label_and_gives_its_figure(folder: Path, found: dict[str, Any]) -> None:
    miou = _labeled_miou(folder, "masks-best", "--config", str(folder / "found" / "best.json"))
    assert miou == pytest.approx(found["miou"], abs=1e-3)


def test_search_that_was_stopped_half_way_ends_as_an_undisturbed_one(folder: Path, found: dict[str, Any]) -> None:
    out = folder / "found"
    results, best = ((out / name).read_bytes() for name in ("results.parquet", "best.json"))
    lost, kept = sorted((out / ".tag2mask" / "counts").glob("*/*.parquet"))[:2]
    lost.unlink()  # a shard that was not counted
    written = kept.stat().st_mtime_ns
    shards = [sorted(place.glob("*.parquet"))[0] for place in (folder / "cache").iterdir()]
    before = [shard.read_bytes() for shard in shards]
    assert len(shards) == 3  # the truth's is one of them
    for shard in shards:
        shard.unlink()  # and a shard that no network had seen
    _search(folder, "found", *SPACE)
    assert (out / "best.json").read_bytes() == best
    assert (out / "results.parquet").read_bytes() == results
    assert lost.exists()
    assert kept.stat().st_mtime_ns == written
    assert [shard.read_bytes() for shard in shards] == before


def test_other_space_in_the_same_folder_is_refused_and_another_folder_uses_the_cache_again(
    folder: Path, found: dict[str, Any], ray_session: None
) -> None:
    with pytest.raises(OutputError, match=r"alphas"):
        _search(folder, "found", *SPACE, "--alphas", "2")
    files = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    more = ("--search", "random", "--num-betas", "2", "--early-stopping", "--top-k-crf", "1")
    summary = _search(folder, "other", *SPACE, *more, "--crf.num-iterations", "2")
    assert files == {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    rows = _rows(folder, "other")
    assert [row["crf"] for row in rows[:3]] == [True, True, False]  # the best and the default
    assert any(row["default"] for row in rows[:2])
    assert summary["settings"]["crf"]["num_iterations"] == 2
    crf = ("--crf.num-iterations", "2")
    labeled = _labeled_miou(folder, "masks-crf", "--config", str(folder / "other" / "best.json"), *crf)
    assert summary["miou"] == pytest.approx(labeled, abs=1e-3)


def test_scales_and_dcrf_are_searched_and_best_json_gives_its_figure(folder: Path, found: dict[str, Any]) -> None:
    more = ("--cam-scales", "0.6,1", "--top-k-crf", "1", "--crf.num-iterations", "2", "--alphas", "1.3", "4")
    summary = _search(
        folder, "wide", *SPACE, *more, "--crf-values", "bilateral-weight=4,30", *_own_cache(folder, "wide")
    )
    rows = _rows(folder, "wide")
    plain = [row for row in rows if not row["crf"]]
    assert {tuple(row["cam_scales"]) for row in plain} == {(1.0,), (0.6, 1.0)}
    assert len(plain) == 2 * 2 * (1 + 2 * 2) + 1  # for both sets of scales; and the default
    assert len(list((folder / "cache-wide").glob("cam-*"))) == 2
    assert len(list((folder / "cache-wide").glob("affinity-*"))) == 1
    assert {row["crf_bilateral_weight"] for row in rows if row["crf"]} == {4.0, 30.0}
    own = next(row for row in plain if row["cam_scales"] == [0.6, 1.0])  # test_figure_is_... is of the others
    walk = ("--walk.alpha", str(own["alpha"]), "--walk.beta", str(own["beta"]))
    steps = ("--walk.num-steps", str(own["num_steps"]))
    sight: tuple[str, ...] = ("--cam.inference.scales", "0.6", "1", "--cam.inference.long-side-px", "96")
    sight += ("--affinity.inference.long-side-px", "96")
    labeled = _labeled_miou(folder, "masks-scales", *walk, *steps, *sight)
    assert own["miou"] == pytest.approx(labeled, abs=1e-3)
    again = ("--crf.num-iterations", "2")
    labeled = _labeled_miou(folder, "masks-wide", "--config", str(folder / "wide" / "best.json"), *again)
    assert summary["miou"] == pytest.approx(labeled, abs=1e-3)


SEEDS: tuple[str, ...] = ("--affinity", "", "--steps", "0", "--walk.num-steps", "0", "--alphas", "1", "2")
SEEDS += ("--seed-alphas-low", "0.4", "0.8", "--seed-alphas-high", "3", "9", "--seed-coverage", "0")
SEEDS += ("--seed.long-side-px", "96", "--seed.crf.num-iterations", "2")
SEEDS += ("--top-k-crf", "1", "--crf.num-iterations", "2")
"""Before there is an AffinityNet: what reads the images themselves, the dCRF and the seeds, has its part in it."""


@pytest.fixture(scope="module")
def seeds_first(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    files = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    summary = _search(folder, "seeds-first", *SEEDS)
    assert files == {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}
    return summary


def test_alphas_of_the_seeds_are_searched_before_there_is_an_affinity_network(
    folder: Path, seeds_first: dict[str, Any]
) -> None:
    rows = pq.read_table(folder / "seeds-first" / "seeds.parquet").to_pylist()
    assert {(row["alpha_low"], row["alpha_high"]) for row in rows} == {(0.4, 3), (0.4, 9), (0.8, 3), (0.8, 9), (1.2, 5)}
    assert all(first["miou"] >= second["miou"] for first, second in pairwise(rows))
    assert [row["default"] for row in rows].count(True) == 1
    best = seeds_first["settings"]["seed"]
    assert (best["alpha_low"], best["alpha_high"]) == (rows[0]["alpha_low"], rows[0]["alpha_high"])
    taken = ["--preset", "tiny", "--data", str(folder / "scenes" / "manifest.csv"), "--cam", str(folder / "cam")]
    taken += ["--config", str(folder / "seeds-first" / "best.json"), "--out", str(folder / "seeds")]
    make_seeds.run(parse(make_seeds.MakeSeeds, taken))


def test_images_in_a_tar_are_searched_with_dcrf_and_seeds_as_files_are(
    folder: Path, seeds_first: dict[str, Any]
) -> None:
    table = csv.DictReader((folder / "scenes" / "manifest.csv").open())
    rows = [(row["image"], row["tags"].split(";")) for row in table]
    some = [(Path(name).stem + ".png", (folder / "scenes" / name).read_bytes(), tags) for name, tags in rows]
    members = [(name, data) for name, data, _ in some]
    members += [(f"{Path(name).stem}.json", json.dumps({"tags": tags}).encode()) for name, _, tags in some]
    (folder / "tar").mkdir()
    (folder / "tar" / "scenes.tar").write_bytes(tar_bytes(sorted(members)))
    data = ("--data", str(folder / "tar" / "scenes.tar"), "--classes", str(folder / "scenes" / "classes.txt"))
    summary = _search(folder, "of-a-tar", *SEEDS, *data, "--cache", str(folder / "tar" / "cache"))
    assert summary["crf"]
    assert (summary["miou"], summary["settings"]) == (seeds_first["miou"], seeds_first["settings"])
    of_both = [pq.read_table(folder / name / "seeds.parquet") for name in ("of-a-tar", "seeds-first")]
    assert of_both[0].equals(of_both[1])


def test_walk_of_a_second_round_is_searched_on_the_segmentation_networks_maps(
    folder: Path, found: dict[str, Any]
) -> None:
    second = ("--cam", str(folder / "segmentation"))
    summary = _search(folder, "second", *SPACE, *second, *_own_cache(folder, "second"))
    assert {"cam", "walk"}.isdisjoint(summary["settings"])
    assert summary["settings"]["later_maps"]["long_side_px"] == 64
    best = _rows(folder, "second")[0]
    assert (best["miou"], best["alpha"]) == (summary["miou"], summary["settings"]["later_walk"]["alpha"])
    labeled = _labeled_miou(folder, "masks-second", *second, "--config", str(folder / "second" / "best.json"))
    assert summary["miou"] == pytest.approx(labeled, abs=1e-3)
    (default,) = (row for row in _rows(folder, "second") if row["default"])
    assert (default["alpha"], default["num_steps"]) == (8.0, 24)


def test_images_that_cannot_be_read_end_the_search_before_it_begins_and_are_read_when_they_are_back(
    folder: Path,
) -> None:
    scenes = folder / "lost"
    shutil.copytree(folder / "scenes", scenes)
    options = ("--data", str(scenes / "manifest.csv"), "--steps", "0", "--walk.num-steps", "0", "--alphas", "1", "2")
    lost = sorted((scenes / "images").iterdir())[0]
    kept = lost.read_bytes()
    lost.unlink()
    cache = ("--cache", str(folder / "lost-cache"))
    with pytest.raises(
        TooManyErrors, match=rf"1 of {NUM_TRUE} images .*\(fetch: 1\), more than max_error_fraction 0.05"
    ):
        _search(folder, "with-lost", *options, *cache)
    assert not (folder / "with-lost" / "best.json").exists()
    some = _search(folder, "without", *options, "--max-error-fraction", "0.2", "--cache", str(folder / "other-cache"))
    assert some["errors"] == {"fetch": 1}
    lost.write_bytes(kept)
    whole = _search(folder, "with-lost", *options, *cache)
    assert whole["errors"] == {}
