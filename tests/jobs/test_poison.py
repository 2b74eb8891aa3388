"""Bad and odd input of every kind among good images: an outcome for each, and no harm to a good one."""

from __future__ import annotations

import json
import posixpath
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.chain import label_chain, run_chain, seed_chain, segment_chain
from engine.config import InferenceConfig, Settings
from engine.errors import ManifestError, StorageError
from engine.guard import guarded
from engine.imaging.codecs import decode_mask
from engine.networks import open_network
from engine.plain_settings import with_part
from engine.presets import preset
from engine.resources import Decoding, ResourceConfig
from engine.stages.fetch import FetchImages
from engine.step import Step
from engine.storage.class_names import read_class_names
from engine.storage.filesystem import write_bytes
from engine.storage.manifest import freeze_manifest
from engine.storage.shards import read_shards
from engine.storage.user_manifest import iter_manifest
from jobs import label
from tests.engine.stages.examples import write_network
from tests.poison import ImageCase, ManifestCase, good_cases, image_cases, manifest_cases, mixed, write_images
from tests.s3_server import S3Server

MAX_PIXELS = 1_000_000
BAD, GOOD = image_cases(), good_cases(12)
# pytest undoes for every test that the module of images silences Pillow
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def _settings() -> Settings:
    tiny = preset("tiny")
    sight = replace(tiny.cam.inference, long_side_px=64, scales=(1.0,))
    return replace(
        tiny,
        cam=replace(tiny.cam, inference=sight),
        affinity=replace(tiny.affinity, inference=replace(tiny.affinity.inference, long_side_px=64)),
        seed=replace(tiny.seed, long_side_px=64, crf=replace(tiny.seed.crf, num_iterations=1)),
        walk=replace(tiny.walk, num_steps=8),
        crf=replace(tiny.crf, num_iterations=2),
        shards=replace(tiny.shards, rows_per_shard=16),
        segmentation=replace(tiny.segmentation, inference=InferenceConfig(long_side_px=64, scales=(1.0,))),
        resources=ResourceConfig(max_network_actors=1, max_crf_actors=1, images_per_pass=8),
    )


SETTINGS = _settings()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kinds = ("cam", "affinity", "segmentation")
    return {kind: write_network(tmp_path_factory.mktemp(kind), kind) for kind in kinds}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest of good and bad images together."""
    return write_images(tmp_path_factory.mktemp("poison") / "data", mixed(GOOD, BAD))


def _chain(weights: dict[str, str], which: str) -> list[Step]:
    cam = open_network(weights["cam"], "cam")
    if which == "segment":
        settings = with_part(SETTINGS, "resources.images_per_pass", 2)
        network = open_network(weights["segmentation"], "segmentation")
        return segment_chain(settings, network, use_tags=True, decoding=Decoding(max_pixels=MAX_PIXELS))
    if which == "seed":
        return seed_chain(SETTINGS, cam, decoding=Decoding(max_pixels=MAX_PIXELS))
    affinity = open_network(weights["affinity"], "affinity").file
    return label_chain(SETTINGS, cam, affinity, decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=False)


def _rows_by_image(data: str, folder: Path, chain: list[Step]) -> dict[str, dict[str, Any]]:
    """What a chain makes of a manifest in this process, without Ray; a row for each image."""
    manifest = freeze_manifest(data, str(folder), rows_per_shard=1000, class_names=read_class_names(data))
    batch = run_chain(chain, guarded("fetch", FetchImages(threads=4), manifest.read_shard(0)))
    names = list(batch)
    return {
        row["image"]: row
        for row in (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))
    }


@pytest.fixture(scope="module")
def outcome(data: str, weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return _rows_by_image(data, tmp_path_factory.mktemp("frozen"), _chain(weights, "mask"))


def _check(case: ImageCase, row: dict[str, Any], column: str = "mask") -> None:
    if isinstance(case.expected, str):
        assert row["error"] is not None
        assert row["error"].startswith(case.expected)
        assert len(row["error"].splitlines()) == 1
        assert len(row["error"].partition(": ")[2]) > 3
        assert row[column] is None
        return
    assert row["error"] is None
    assert (row["height"], row["width"]) == case.expected
    if column == "mask":
        assert decode_mask(row["mask"]).shape == case.expected


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.kind)
def test_bad_or_odd_image_ends_as_expected(case: ImageCase, outcome: dict[str, dict[str, Any]]) -> None:
    _check(case, outcome[case.image])


def test_good_images_have_the_masks_that_they_have_without_the_bad_ones(
    outcome: dict[str, dict[str, Any]], weights: dict[str, str], tmp_path: Path
) -> None:
    alone = _rows_by_image(write_images(tmp_path / "good", GOOD), tmp_path / "frozen", _chain(weights, "mask"))
    for case in GOOD:
        _check(case, outcome[case.image])
        for column in ("mask", "areas", "confidence"):
            assert outcome[case.image][column] == alone[case.image][column]


@pytest.mark.parametrize(("which", "column"), [("seed", "seed"), ("segment", "mask")])
def test_other_stages_take_bad_and_odd_images_as_well(
    which: str, column: str, data: str, weights: dict[str, str], tmp_path: Path
) -> None:
    rows = _rows_by_image(data, tmp_path, _chain(weights, which))
    for case in [*GOOD, *BAD]:
        _check(case, rows[case.image], column)


@pytest.mark.parametrize("case", manifest_cases(), ids=lambda case: case.kind)
def test_bad_or_odd_manifest_ends_as_expected(case: ManifestCase, tmp_path: Path) -> None:
    (tmp_path / case.name).write_bytes(case.content)
    location = str(tmp_path / case.name)
    if isinstance(case.expected, str):
        with pytest.raises((ManifestError, StorageError)) as refused:
            freeze_manifest(location, str(tmp_path / "out"), rows_per_shard=4, class_names=read_class_names(location))
        assert case.expected in str(refused.value)
        assert location in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
        assert len(str(refused.value)) < 500
        return
    freeze_manifest(location, str(tmp_path / "out"), rows_per_shard=4, class_names=read_class_names(location))
    rows = [row for batch in iter_manifest(location) for row in zip(batch["image"], batch["tags"], strict=True)]
    assert rows == case.expected


@pytest.mark.s3
def test_keys_of_odd_names_are_read_from_a_bucket(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.make_bucket(f"poison-{uuid.uuid4().hex[:12]}")
    cases = [case for case in BAD if case.kind.startswith("name with ") and case.encoded is not None]
    for case in cases:
        key = posixpath.normpath(case.image)
        with s3.filesystem().open_output_stream(f"{bucket.removeprefix('s3://')}/set 1/{key}") as file:
            file.write(case.encoded)
    names = [case.image for case in cases] + ["missing#.png", "", "folder=/", "file:///etc/passwd", "/etc/passwd"]
    rows = [{"image_id": str(number), "image": name, "tags": ["cat"]} for number, name in enumerate(names)]
    location = f"{bucket}/set 1/m.jsonl"
    write_bytes(location, "".join(json.dumps(row) + "\n" for row in rows).encode())
    manifest = freeze_manifest(location, str(tmp_path), rows_per_shard=100, class_names=("cat",))
    batch = FetchImages(threads=8)(manifest.read_shard(0))
    assert batch["error"][: len(cases)] == [None] * len(cases)
    assert batch["encoded"][: len(cases)] == [case.encoded for case in cases]
    missing, nameless, folder, *outside = batch["error"][len(cases) :]
    assert missing == f"fetch: '{bucket}/set 1/missing#.png' does not exist"
    assert nameless == "manifest: the row names no image"
    assert folder.startswith("fetch: ")
    assert all("lies outside the manifest's folder" in error for error in outside)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    try:
        forbidden = FetchImages(threads=8)(manifest.read_shard(0))["error"][0]
    except OSError as error:  # a store that refuses its credentials is no image's fault
        forbidden = str(error)
    assert "may not be accessed with these credentials" in forbidden


@pytest.mark.slow
def test_labeling_gives_the_same_rows_among_all_kinds_of_bad_images(
    data: str, outcome: dict[str, dict[str, Any]], weights: dict[str, str], tmp_path: Path, ray_session: None
) -> None:
    config = label.Label(
        data=data,
        out=str(tmp_path / "masks"),
        preset="tiny",
        max_pixels=MAX_PIXELS,
        max_error_fraction=1.0,
        settings=with_part(SETTINGS, "resources.images_per_pass", 1),
        cam=weights["cam"],
        affinity=weights["affinity"],
    )
    summary = label.run(config)
    rows = {row["image"]: row for table in read_shards(config.out) for row in table.to_pylist()}
    assert rows.keys() == outcome.keys()
    for case in [*GOOD, *BAD]:
        row = rows[case.image]
        row["mask"] = row["mask"] and row["mask"]["bytes"]
        _check(case, row)
        assert row["error"] == outcome[case.image]["error"]
    for case in GOOD:
        assert rows[case.image]["mask"] == outcome[case.image]["mask"]
    assert summary["images"] == len(GOOD) + len(BAD)
    assert summary["labeled"] == sum(not isinstance(case.expected, str) for case in [*GOOD, *BAD])
