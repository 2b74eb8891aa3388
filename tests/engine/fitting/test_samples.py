"""Training samples: an image and its target stay together through scaling, crop and flip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.config import TrainingConfig
from engine.errors import TooManyErrors
from engine.fitting.sample_order import samples_of_step
from engine.fitting.samples import LoadSamples, SampleSource, _jittered, cut_labels, image_labels, kept_rows
from engine.imaging.codecs import encode_mask
from engine.presets import preset
from engine.storage.subsets import is_held_out
from tests.engine.stages.examples import picture, png, write_samples

CONFIG = replace(
    preset("tiny").cam.training,
    batch_size=4,
    crop_px=64,
    long_side_px=(48, 120),
    color_jitter=(0.0, 0.0, 0.0, 0.0),
)
STEP = {"step": np.array([1]), "held_out": np.array([False])}
SHADES = np.array([0, 80, 160, 240], dtype=np.uint8)
"""Grey of each class id: the picture says what its mask must be."""


def _mask(height: int, width: int, rng_seed: int) -> np.ndarray:
    blocks = np.random.default_rng(rng_seed).integers(0, 4, (2, 3))
    mask = np.kron(blocks, np.ones((-(-height // 2), -(-width // 3)), dtype=np.int64))
    return mask[:height, :width].astype(np.uint8)


def _loader(source: SampleSource, config: TrainingConfig = CONFIG, rank: int = 0, num_workers: int = 1) -> LoadSamples:
    return LoadSamples(source, config, rank=rank, num_workers=num_workers)


def test_cut_labels_is_what_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        labels = rng.integers(0, 9, rng.integers(1, 12, 2))
        size, corner = rng.integers(5, 90, 2).tolist(), rng.integers(-40, 40, 2).tolist()
        cell = int(rng.choice([1, 4, 8]))
        crop = 8 * int(rng.integers(1, 6))
        expected = np.full((crop // cell, crop // cell), 255)
        for y in range(crop // cell):
            for x in range(crop // cell):
                row, column = corner[0] + (y + 0.5) * cell, corner[1] + (x + 0.5) * cell
                if 0 <= row < size[0] and 0 <= column < size[1]:
                    expected[y, x] = labels[
                        int(row * labels.shape[0] / size[0]), int(column * labels.shape[1] / size[1])
                    ]
        found = cut_labels(labels, tuple(size), tuple(corner), crop=crop, cell=cell, ignore=255)
        np.testing.assert_array_equal(found, expected)


def test_image_labels_name_the_tags() -> None:
    assert image_labels([3, 1], 4).tolist() == [1, 0, 1, 0]
    assert image_labels([], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("target", ["mask", "seed"])
def test_target_is_cropped_and_flipped_with_its_image(target: str, tmp_path: Path) -> None:
    masks = [_mask(60 + 7 * number, 90 - 6 * number, number) for number in range(6)]
    pictures = [png(np.repeat(SHADES[mask][:, :, None], 3, axis=2)) for mask in masks]
    source = write_samples(tmp_path, pictures, {target: [encode_mask(mask) for mask in masks]})
    loader, cell = _loader(source), 8 if target == "seed" else 1
    seen = beyond = 0
    for epoch in range(8):
        for shard, row in [(shard, row) for shard in range(2) for row in range(3)]:
            image, labels, _ = loader.sample(epoch, shard, row)
            assert image.shape == (64, 64, 3)
            assert labels.shape == (64 // cell, 64 // cell)
            for y in range(2, 62):
                for x in range(2, 62, 5):
                    around = image[y - 2 : y + 3, x - 2 : x + 3, 0].astype(int)
                    label = labels[y // cell, x // cell]
                    if label == 255:
                        beyond += 1
                        continue
                    flat = np.ptp(around) == 0 and around[0, 0] in SHADES
                    inside = cell == 1 or (y % cell == x % cell == cell // 2)
                    if flat and inside:
                        assert SHADES[label] == around[0, 0]
                        seen += 1
    assert seen > 500
    assert beyond > 100


def test_beyond_the_image_lies_its_mean_colour_and_nothing_to_learn(tmp_path: Path) -> None:
    image = np.full((20, 40, 3), (200, 100, 50), dtype=np.uint8)
    source = write_samples(tmp_path, [png(image)], {"mask": [encode_mask(np.ones((20, 40), dtype=np.uint8))]})
    pixels, target, _ = _loader(source, replace(CONFIG, long_side_px=(48, 48))).sample(0, 0, 0)
    assert set(np.unique(target).tolist()) == {1, 255}
    assert (target == 1).sum() == 24 * 48
    np.testing.assert_array_equal(pixels, np.broadcast_to(image[0, 0], pixels.shape))


def test_same_seed_gives_the_same_crops_and_another_epoch_gives_others(tmp_path: Path) -> None:
    source = write_samples(tmp_path, [png(picture(70, 90, number)) for number in range(3)])
    config = replace(CONFIG, color_jitter=(0.3, 0.3, 0.3, 0.1))
    first, again = _loader(source, config).sample(0, 0, 1), _loader(source, config).sample(0, 0, 1)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != _loader(source, config).sample(1, 0, 1)[0]).any()
    assert (first[0] != _loader(source, replace(config, rng_seed=1)).sample(0, 0, 1)[0]).any()


@pytest.mark.parametrize("rng_seed", range(4))
def test_colors_change_as_by_torchvision(rng_seed: int) -> None:
    from torchvision.transforms import functional

    image, jitter = Image.fromarray(picture(40, 50)), (0.3, 0.4, 0.5, 0.2)
    found = _jittered(image, jitter, np.random.default_rng(rng_seed))
    rng = np.random.default_rng(rng_seed)
    brightness, contrast, saturation = (rng.uniform(1 - most, 1 + most) for most in jitter[:3])
    expected = functional.adjust_contrast(functional.adjust_brightness(image, brightness), contrast)
    expected = functional.adjust_hue(functional.adjust_saturation(expected, saturation), rng.uniform(-0.2, 0.2))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_workers_share_a_step_without_gap_or_overlap(num_workers: int, tmp_path: Path) -> None:
    source = write_samples(tmp_path, [png(picture(50, 60, number)) for number in range(5)])
    alone = _loader(source)(STEP)
    parts = [_loader(source, rank=rank, num_workers=num_workers)(STEP) for rank in range(num_workers)]
    assert len(samples_of_step(source.rows_of_shards, 1, batch_size=4, rng_seed=0)) == 4
    assert sum(len(part["image"]) for part in parts) == 4
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(part["image"], alone["image"][rank::num_workers])
        np.testing.assert_array_equal(part["target"], alone["target"][rank::num_workers])


@pytest.mark.parametrize("trouble", ["missing", "no image", "truncated"])
def test_unreadable_image_gives_its_place_to_another(trouble: str, tmp_path: Path) -> None:
    source = write_samples(tmp_path, [png(np.full((64, 64, 3), 10 * number, dtype=np.uint8)) for number in range(4)])
    bad = tmp_path / "1.png"
    if trouble == "missing":
        bad.unlink()
    else:
        bad.write_bytes(b"no picture" if trouble == "no image" else png(picture(64, 64))[:200])
    image, target, _ = _loader(source).sample(0, 0, 1)
    assert np.ptp(image) == 0
    assert int(image[0, 0, 0]) in (0, 20, 30)
    assert target.tolist() == [1, 0, 1]


@pytest.mark.parametrize("location", ["ftp://example.com/1.png", "ftps://bucket/1.png", "1\0.png"])
def test_image_on_a_store_that_nobody_can_read_gives_its_place_to_another(location: str, tmp_path: Path) -> None:
    source = write_samples(tmp_path, [png(np.full((64, 64, 3), 10 * number, dtype=np.uint8)) for number in range(4)])
    loader = _loader(source)
    shard = loader._read(0, held_out=False)
    shard["uri"][1] = location  # the loader keeps what it has read
    image, _, _ = loader.sample(0, 0, 1)
    assert int(image[0, 0, 0]) in (0, 20, 30)


def test_row_whose_target_is_an_error_gives_its_place_to_another(tmp_path: Path) -> None:
    pictures = [png(np.full((64, 64, 3), 60 * number, dtype=np.uint8)) for number in range(4)]
    masks = [None if number == 2 else encode_mask(np.full((64, 64), number, dtype=np.uint8)) for number in range(4)]
    loader = _loader(write_samples(tmp_path, pictures, {"mask": masks}))
    for epoch in range(4):
        image, target, _ = loader.sample(epoch, 0, 2)
        (label,) = set(np.unique(target).tolist()) - {255}
        assert label != 2
        assert image[32, 32, 0] == 60 * label


@pytest.mark.parametrize(("masks", "reason"), [(["good", "good"], "decode: not a picture"), ([None, None], "crf: odd")])
def test_training_gives_up_where_no_image_can_be_used(masks: list[Any], reason: str, tmp_path: Path) -> None:
    values = [None if mask is None else encode_mask(np.ones((8, 8), dtype=np.uint8)) for mask in masks]
    loader = _loader(write_samples(tmp_path, [b"no picture"] * 2, {"mask": values}))
    with pytest.raises(TooManyErrors, match=f"^20 images in a row cannot be used; the last: .*{reason}"):
        loader.sample(0, 0, 0)


def test_held_out_images_are_seen_whole_and_never_learned_from(tmp_path: Path) -> None:
    masks = [np.full((30, 60), number, dtype=np.uint8) for number in range(6)]
    pictures = [png(np.full((30, 60, 3), 40 * number, dtype=np.uint8)) for number in range(6)]
    every = write_samples(tmp_path, pictures, {"mask": [encode_mask(mask) for mask in masks]})
    fraction = 0.4
    kept_out = [number for number in range(6) if is_held_out(f"{number}.png", fraction)]
    assert 0 < len(kept_out) < 6
    counts = tuple(sum(number // 3 == shard for number in kept_out) for shard in range(2))
    left = tuple(3 - count for count in counts)
    source = replace(every, rows_of_shards=left, held_out_of_shards=counts, val_fraction=fraction)

    loader = _loader(source)
    learned = {int(np.unique(loader.sample(epoch, *place)[1])[0]) for epoch in range(3) for place in _places(left)}
    assert learned == set(range(6)) - set(kept_out)

    (tmp_path / f"{kept_out[0]}.png").write_bytes(b"no picture")
    scored = []
    for rank in range(2):
        for number in range(2):
            step = {"step": np.array([number]), "held_out": np.array([True])}
            batch = _loader(source, rank=rank, num_workers=2)(step)
            assert [len(values) for values in batch.values()] == [2, 2, 2]
            for image, target, weight in zip(*batch.values(), strict=True):
                if weight:
                    label = int(target[32, 32])
                    assert (target == label).sum() == 32 * 64  # all of it, with bars above and below
                    assert image[32, 32, 0] == 40 * label
                    scored.append(label)
                else:
                    assert (target == 255).all()
    assert sorted(scored) == kept_out[1:]


def _places(rows_of_shards: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(shard, row) for shard, rows in enumerate(rows_of_shards) for row in range(rows)]


def test_mask_counts_by_its_confidence(tmp_path: Path) -> None:
    mask = encode_mask(np.ones((20, 40), dtype=np.uint8))
    every = write_samples(tmp_path, [png(picture(20, 40))] * 2, {"mask": [mask] * 2}, confidence=[0.5, 0.9])
    loader = _loader(replace(every, confidence_power=2.0))
    assert [loader.sample(0, 0, row)[2] for row in range(2)] == pytest.approx([0.25, 0.81])
    assert _loader(every).sample(0, 0, 0)[2] == 1


def test_unsure_masks_are_not_learned_from(tmp_path: Path) -> None:
    masks: list[bytes | None] = [encode_mask(np.full((64, 64), number, dtype=np.uint8)) for number in range(6)]
    confidence: list[float | None] = [0.2, 0.5, 0.9, 0.4, 0.49, 0.8]
    every = write_samples(tmp_path, [png(picture(64, 64))] * 6, {"mask": masks}, confidence=confidence)
    source = replace(every, min_confidence=0.5, rows_of_shards=(2, 1))
    loader = _loader(source)
    learned = {int(np.unique(loader.sample(0, *place)[1])[0]) for place in _places((2, 1))}
    assert learned == {1, 2, 5}
    assert kept_rows(source, ["a", "b", "c"], [0.2, None, 0.5], held_out=False) == [2]
    all_held_out = replace(source, val_fraction=1.0)
    assert kept_rows(all_held_out, ["a", "b", "c"], [0.2, None, 0.5], held_out=True) == [0, 1, 2]
