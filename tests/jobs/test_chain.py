"""The jobs one after the other, as jobs.run did them: what each leaves behind, and what it does the second time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from engine.config import WalkConfig
from engine.errors import ManifestError, OutputError
from engine.imaging.codecs import decode_mask
from engine.labeling import label_images
from engine.networks import load_network
from engine.plain_settings import with_part
from engine.records import mask_schema
from engine.storage.run_record import read_record
from engine.storage.shards import committed_shards, read_schema, read_shards
from jobs import check_tags, evaluate, label, segment, train_cam
from jobs.cli.command import main
from tests.jobs.conftest import Chain
from tests.jobs.small_runs import CHAIN_SETTINGS, NETWORK, NUM_HELD_OUT, NUM_SCENES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_ray")]  # all but the chain


@pytest.fixture(scope="module")
def folder(chain: Chain) -> Path:
    """The scenes under ``scenes/``, and what every job wrote beside them; a test adds to it and changes nothing."""
    return Path(chain.config.out)


@pytest.fixture
def masks(folder: Path, tmp_path: Path) -> Path:
    """A copy of the masks."""
    return Path(shutil.copytree(folder / "masks", tmp_path / "masks"))


def _shared(root: Path, out: str) -> dict[str, Any]:
    data = str(root / "scenes" / "manifest.csv")
    return {"data": data, "out": str(root / out), "preset": "tiny", "settings": CHAIN_SETTINGS}


def _label(root: Path, cam: str, affinity: str, out: Path, **changes: Any) -> label.Label:
    values: dict[str, Any] = {**_shared(root, ""), "out": str(out), "cam": cam, "affinity": affinity}
    return label.Label(**{**values, **changes})


def _json(folder: str, name: str) -> dict[str, Any]:
    values = read_record(folder, name)
    assert values is not None
    return values


def _check_trained(out: str, kind: str) -> dict[str, Any]:
    names = tuple((Path(out).parent / "scenes" / "classes.txt").read_text().split())
    network, architecture = load_network(out, kind)
    assert architecture.class_names == names
    assert architecture.backbone == NETWORK["backbone"]
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    summary = _json(out, "summary.json")
    num_trained = NUM_SCENES - NUM_HELD_OUT
    assert (summary["images"], summary["held_out"], summary["steps"]) == (num_trained, NUM_HELD_OUT, num_trained // 6)
    assert summary["loss"] == summary["curve"][-1]["loss"] > 0
    record = _json(out, "run.json")
    assert record["settings"][kind]["training"]["crop_px"] == 64
    assert record["versions"].keys() >= {"torch", "ray", "tag2mask"}
    assert {path.name for path in Path(out, ".tag2mask").iterdir()} == {
        "manifest",
        "manifest.json",
    }  # no checkpoints left
    assert Path(out, "curves.png").stat().st_size > 1000
    assert len(list(Path(out, "tensorboard").iterdir())) == 1
    return summary


def _rows(out: str) -> list[dict[str, Any]]:
    return [row for table in read_shards(out) for row in table.to_pylist()]


def _check_complete(root: Path, out: str) -> list[dict[str, Any]]:
    """One row for every image of the manifest, none with an error, and a summary that says so."""
    assert committed_shards(out) == {0, 1, 2}
    rows = _rows(out)
    lines = (root / "scenes" / "manifest.csv").read_text().splitlines()[1:]
    assert sorted(row["image_id"] for row in rows) == sorted(line.split(",")[0] for line in lines)
    assert [row["error"] for row in rows] == [None] * NUM_SCENES
    assert {(row["height"], row["width"]) for row in rows} == {(96, 96)}
    summary = _json(out, "summary.json")
    assert (summary["images"], summary["labeled"], summary["errors"]) == (NUM_SCENES, NUM_SCENES, {})
    assert summary["seconds"] > 0
    assert summary["images_per_s"] > 0
    assert summary["stage_seconds"].keys() >= {"manifest", "fetch", "decode", "encode", "commit"}
    assert summary["per_million_images"]["hours"] > 0
    return rows


def test_classifier_is_trained_once(folder: Path) -> None:
    cam = str(folder / "cam")
    _check_trained(cam, "cam")
    before = Path(cam, "weights.safetensors").stat().st_mtime_ns
    config = train_cam.TrainCam(**_shared(folder, "cam"))
    again = train_cam.run(config)
    assert again == _json(cam, "summary.json")
    assert Path(cam, "weights.safetensors").stat().st_mtime_ns == before
    other = with_part(CHAIN_SETTINGS, "cam.training.learning_rate", 1.0)
    with pytest.raises(OutputError, match=r"cam\.training\.learning_rate: .* -> 1\.0"):
        train_cam.run(replace(config, settings=other))


def test_contradicted_tags_are_listed_the_most_confident_first(folder: Path) -> None:
    cam = str(folder / "cam")
    config = check_tags.CheckTags(
        **_shared(folder, "tags"),
        cam=cam,
        doubt_below=0.6,
        miss_above=0.4,
    )
    summary = check_tags.run(config)
    assert committed_shards(config.out) == {0, 1, 2}
    names = _json(cam, "run.json")["class_names"]
    expected = {}
    for row in _rows(config.out):
        for name, probability in zip(names, row["probabilities"], strict=True):
            if probability < 0.6 if name in row["tags"] else probability > 0.4:
                expected[row["image_id"], name] = (name in row["tags"], probability)
    table = pq.read_table(f"{config.out}/contradicted.parquet").to_pylist()
    assert {(row["image_id"], row["tag"]): (row["present"], row["probability"]) for row in table} == expected
    assert {row["present"] for row in table} == {True, False}  # a network of two steps is sure of nothing
    assert (summary["denied"], summary["missed"]) == tuple(
        sum(row["present"] is kind for row in table) for kind in (True, False)
    )
    surety = [1 - row["probability"] if row["present"] else row["probability"] for row in table]
    assert surety == sorted(surety, reverse=True)
    none = check_tags.run(replace(config, doubt_below=0.0, miss_above=1.0))
    assert (none["denied"], none["missed"]) == (0, 0)


def test_seeds_lie_on_their_grid_with_sure_cells_of_the_tags_alone(folder: Path) -> None:
    seeds = str(folder / "seeds")
    ids = {name: number for number, name in enumerate(_json(seeds, "run.json")["class_names"], start=1)}
    for row in _check_complete(folder, seeds):
        seed = decode_mask(row["seed"]["bytes"])
        assert seed.shape == (12, 12)
        assert set(np.unique(seed).tolist()) <= {0, 255, *(ids[tag] for tag in row["tags"])}


def test_affinity_network_is_trained_on_the_seeds(folder: Path) -> None:
    affinity = str(folder / "affinity")
    _check_trained(affinity, "affinity")


def test_masks_keep_the_contract(folder: Path) -> None:
    masks = str(folder / "masks")
    rows = _check_complete(folder, masks)
    ids = {name: number for number, name in enumerate(_json(masks, "run.json")["class_names"], start=1)}
    schema = read_schema(masks)
    assert schema.equals(mask_schema(keep_stages=True, metadata={}), check_metadata=False)
    about = json.loads(schema.metadata[b"tag2mask"])
    assert about["class_names"] == list(ids)
    assert about["config_hash"] == _json(masks, "summary.json")["config_hash"]
    assert about["inputs"].keys() >= {"cam", "affinity"}
    for row in rows:
        for column in ("mask", "mask_cam", "mask_walk"):
            mask = decode_mask(row[column]["bytes"])
            assert mask.shape == (96, 96)
            assert set(np.unique(mask).tolist()) <= {0, *(ids[tag] for tag in row["tags"])}
        assert sum(row["areas"]) == pytest.approx(1, abs=1e-5)
        assert len(row["areas"]) == len(row["tags"]) + 1
        assert 0 <= row["confidence"] <= 1


def test_networks_of_a_run_are_used_with_the_settings_of_the_run(folder: Path, tmp_path: Path) -> None:
    networks = [f"--cam={folder / 'cam'}", f"--affinity={folder / 'affinity'}"]
    arguments = [f"--data={folder / 'scenes' / 'manifest.csv'}", f"--out={tmp_path / 'masks'}", *networks]
    assert main(label.Label, label.run, arguments) == 0
    first = {row["image_id"]: row for row in _rows(str(folder / "round-1" / "masks"))}
    rows = _rows(str(tmp_path / "masks"))
    assert [row["mask"] for row in rows] == [first[row["image_id"]]["mask"] for row in rows]
    row = rows[0]
    (alone,) = label_images(
        [folder / "scenes" / row["image"]], [row["tags"]], cam=folder / "cam", affinity=folder / "affinity"
    )
    np.testing.assert_array_equal(alone.mask, decode_mask(row["mask"]["bytes"]))


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb", "datasets"])
def test_other_programs_read_the_shards_by_their_pattern(reader: str, folder: Path, tmp_path: Path) -> None:
    masks = str(folder / "masks")
    pattern = f"{masks}/*.parquet"
    if reader == "pandas":
        import pandas as pd

        num_rows = len(pd.read_parquet(sorted(glob(pattern))))
    elif reader == "polars":
        import polars as pl

        num_rows = pl.read_parquet(pattern).height
    elif reader == "duckdb":
        import duckdb

        [(num_rows,)] = duckdb.execute(f"select count(*) from '{pattern}'").fetchall()
    else:
        import datasets

        loaded = datasets.load_dataset("parquet", data_files=pattern, cache_dir=str(tmp_path), split="train")
        assert loaded[0]["mask"].size == (96, 96)
        num_rows = loaded.num_rows
    assert num_rows == NUM_SCENES


def test_masks_are_scored_against_the_truth(folder: Path) -> None:
    masks = str(folder / "masks")
    result = evaluate.run(evaluate.Evaluate(masks=masks, truth=str(folder / "scenes" / "truth")))
    assert result["images"] == NUM_SCENES
    assert 0 < result["miou"] < 1
    assert np.sum(result["confusion"]) <= NUM_SCENES * 96 * 96
    same = evaluate.run(evaluate.Evaluate(masks=masks, truth=masks, out=str(folder / "same")))
    assert same["miou"] == 1


def test_labeling_again_does_nothing_and_other_settings_are_refused(folder: Path, masks: Path) -> None:
    cam = str(folder / "round-1" / "segmentation")
    config = _label(folder, cam, str(folder / "affinity"), masks, keep_stages=True)
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in masks.iterdir() if path.is_file()}
    summary = label.run(config)
    assert (summary["images"], summary["labeled"], summary["errors"]) == (NUM_SCENES, NUM_SCENES, {})

    def changed(path: str, value: object) -> label.Label:
        return replace(config, settings=with_part(config.settings, path, value))

    with pytest.raises(OutputError, match=r"later_walk\.alpha"):
        label.run(changed("later_walk.alpha", 3.0))
    with pytest.raises(OutputError, match=r"later_maps\.flip"):
        label.run(changed("later_maps.flip", False))
    for path, value in (("cam.inference.flip", False), ("walk.alpha", 3.0)):  # of the first round: no part in it
        assert label.run(changed(path, value)) == summary
    with pytest.raises(OutputError, match="keep_stages"):
        label.run(replace(config, keep_stages=False))
    assert files == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in masks.iterdir() if path.is_file()}
    (masks / ".tag2mask" / "summary.json").unlink()  # as after a kill at the very end
    assert label.run(config)["seconds"] < summary["seconds"]
    assert _json(str(masks), "summary.json")["images"] == NUM_SCENES


def test_shard_that_is_gone_is_made_again_with_the_same_bytes_and_no_other(folder: Path, masks: Path) -> None:
    cam = str(folder / "round-1" / "segmentation")
    shard = masks / "shard-000001.parquet"
    before = shard.read_bytes()
    shard.unlink()
    others = {path: path.stat().st_mtime_ns for path in masks.glob("shard-*.parquet")}
    summary = label.run(_label(folder, cam, str(folder / "affinity"), masks, keep_stages=True))
    assert summary["labeled"] == NUM_SCENES
    assert shard.read_bytes() == before
    assert len(others) == 2
    assert {path: path.stat().st_mtime_ns for path in others} == others  # what was done was left alone


def test_network_learns_from_the_masks_and_segments_with_and_without_tags(folder: Path) -> None:
    segmentation = str(folder / "segmentation")
    summary = _check_trained(segmentation, "segmentation")
    assert [point["step"] for point in summary["validation"]] == [summary["steps"]]
    assert summary["best"] == {"step": summary["steps"], "score": summary["validation"][0]["miou"]}
    best, last = (
        load_network(f"{segmentation}/{name}weights.safetensors", "segmentation")[0] for name in ("best-", "")
    )
    for name, value in best.state_dict().items():
        assert torch.equal(value, last.state_dict()[name])
    config = segment.SegmentImages(
        **_shared(folder, "segmented-with-tags"),
        segmentation=segmentation,
        use_tags=True,
    )
    segment.run(config)
    ids = {name: number for number, name in enumerate(_json(segmentation, "run.json")["class_names"], start=1)}
    for row in _check_complete(folder, config.out):
        mask = decode_mask(row["mask"]["bytes"])
        assert mask.shape == (96, 96)
        assert set(np.unique(mask).tolist()) <= {0, *(ids[tag] for tag in row["tags"])}
    assert read_schema(config.out).equals(mask_schema(keep_stages=False, metadata={}), check_metadata=False)
    with pytest.raises(OutputError, match="use_tags"):
        segment.run(replace(config, use_tags=False))

    images = sorted(path.name for path in (folder / "scenes" / "images").iterdir())[:2]
    untagged = folder / "scenes" / "untagged.csv"
    untagged.write_text("image\n" + "".join(f"images/{name}\n" for name in images))
    config = replace(config, data=str(untagged), out=str(folder / "untagged"))
    with pytest.raises(ManifestError, match="has no column 'tags'"):
        segment.run(config)
    assert segment.run(replace(config, use_tags=False))["labeled"] == len(images)
    assert [(row["image"], row["tags"]) for row in _rows(config.out)] == [(f"images/{name}", []) for name in images]


def test_bad_images_end_in_error_rows_and_too_many_of_them_in_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cam = str(folder / "cam")
    bad = folder / "bad"
    bad.mkdir()
    (bad / "no-image.png").write_bytes(b"no picture")
    good = sorted((folder / "scenes" / "images").iterdir())[:2]
    tag = _json(cam, "run.json")["class_names"][0]
    rows = [f"{good[0]},{tag}", f"missing.png,{tag}", f"no-image.png,{tag}", f"{good[1]},unicorn"]
    (bad / "manifest.csv").write_text("image,tags\n" + "\n".join(rows) + "\n")
    config = _label(
        folder,
        cam,
        "",
        bad / "masks",
        data=str(bad / "manifest.csv"),
        settings=replace(
            CHAIN_SETTINGS,
            walk=WalkConfig(num_steps=0),
            crf=replace(CHAIN_SETTINGS.crf, num_iterations=0),
        ),
        allow_outside=True,  # the good ones lie among the scenes
    )
    arguments = ["--data", "m", "--out", "o", "--cam", "c"]
    assert main(label.Label, lambda _: label.run(config), arguments) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("failed: 3 of 4 images ended in an error")

    by_stage = {Path(row["image_id"]).name: row["error"] for row in _rows(config.out)}
    assert by_stage.pop(good[0].name) is None
    assert {name: error.split(":")[0] for name, error in by_stage.items()} == {
        "missing.png": "fetch",
        "no-image.png": "decode",
        good[1].name: "manifest",
    }
    for row in _rows(config.out):
        assert all((row[column] is None) == (row["error"] is not None) for column in ("mask", "height", "width"))
    summary = _json(config.out, "summary.json")
    assert summary["errors"] == {"fetch": 1, "decode": 1, "manifest": 1}
    with pytest.raises(OutputError, match="alpha"):
        label.run(replace(config, settings=replace(config.settings, walk=WalkConfig(num_steps=0, alpha=9.0))))

    lenient = replace(config, max_error_fraction=1.0)
    assert main(label.Label, lambda _: label.run(lenient), arguments) == 0

    (bad / "missing.png").write_bytes(good[0].read_bytes())
    summary = label.run(replace(lenient, retry_errors=True))
    assert summary["errors"] == {"decode": 1, "manifest": 1}
