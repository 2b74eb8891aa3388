"""The masks of eight scenes, end to end: what must not change unless someone means to.

Where floats are computed as on the machine that stored the golden masks (same versions, same vector instructions, same
vendor) their hash is the same. Elsewhere the last bit of a probability may differ, which flips a pixel only where two
classes are as good as equal: there MIN_AGREEMENT of the pixels are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.imaging.codecs import decode_mask
from engine.ops.metrics import confusion_matrix, mean_iou
from engine.scenes import CLASS_NAMES
from engine.storage.shards import committed_shards, read_shard
from jobs.label import Label, run
from tests.golden import (
    RECORD,
    Mask,
    Networks,
    arithmetic,
    golden_masks,
    golden_scenes,
    golden_settings,
    hash_of,
    stored_masks,
    write_networks,
)

MIN_AGREEMENT, MIN_MIOU = 0.999, 0.65


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As an actor has it: sums of more threads have another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Networks:
    return write_networks(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def masks(networks: Networks) -> list[Mask]:
    return golden_masks(networks)


def test_masks_are_the_golden_ones(masks: list[Mask]) -> None:
    record = json.loads(RECORD.read_text())
    if all(record[name] == value for name, value in arithmetic().items()):
        assert hash_of(masks) == record["sha256"]
    assert np.mean(np.stack(masks) == np.stack(stored_masks())) >= MIN_AGREEMENT


def test_golden_masks_are_those_that_were_hashed() -> None:
    assert hash_of(stored_masks()) == json.loads(RECORD.read_text())["sha256"]


def test_masks_are_as_good_as_they_were(masks: list[Mask]) -> None:
    pairs = zip(golden_scenes().truth, masks, strict=True)
    confusion = sum(confusion_matrix(truth, mask, len(CLASS_NAMES)) for truth, mask in pairs)
    assert mean_iou(np.asarray(confusion))[1] >= MIN_MIOU


@pytest.mark.slow
def test_job_makes_the_same_masks_in_rays_actors(
    networks: Networks, masks: list[Mask], tmp_path: Path, ray_session: None
) -> None:
    scenes, settings = golden_scenes(), golden_settings()
    lines = ["image,tags"]
    for number, (image, tags) in enumerate(zip(scenes.images, scenes.tags, strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(tags)}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    settings = replace(settings, shards=replace(settings.shards, rows_per_shard=3))
    out = str(tmp_path / "out")
    run(Label(data=str(tmp_path / "manifest.csv"), out=out, settings=settings, **networks))
    rows = [row for shard in sorted(committed_shards(out)) for row in read_shard(out, shard).to_pylist()]
    assert [row["image_id"] for row in rows] == [f"{number}.png" for number in range(len(scenes.images))]
    assert hash_of([decode_mask(row["mask"]["bytes"]) for row in rows]) == hash_of(masks)
