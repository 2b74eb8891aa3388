"""Sums over groups of images of what a pass has counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.config import SeedConfig, WalkConfig
from engine.errors import TooManyErrors
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.presets import preset
from engine.stages.count import Slice
from engine.storage.cached_maps import CachedMaps
from engine.storage.shards import write_shard
from engine.storage.tally import Tally
from tune.counts import MAX_GROUPS, SCHEMA, Counting, stale
from tune.search import Search
from tune.trials import check_trial

SLICE = Slice(scales=(1.0,), beta=2.0, alphas=(1.0, 2.0), steps=(8,))


def _counting(folder: Path, num_images: int) -> Counting:
    maps = CachedMaps(
        location="",
        num_rows=num_images,
        rows_per_shard=2,
        class_names=("cat",),
        data_hash="",
        source_folder="",
        allow_outside=True,
        cams=("",),
        distances="",
        truth="",
    )
    return Counting(
        maps=maps,
        true_pixels=np.arange(2 * num_images).reshape(-1, 2),
        scale_sets=((1.0,),),
        folder=str(folder),
        walk=WalkConfig(),
        config=Search(data="", out="", truth="", cam="", settings=preset("tiny")),
    )


def _write(folder: str, shard: int, *counts: np.ndarray | None) -> None:
    rows = [None if one is None else one.astype(np.int32).tobytes() for one in counts]
    table = {"image_id": [str(row) for row in range(len(rows))], "counts": rows, "error": [None] * len(rows)}
    write_shard(folder, shard, pa.table(table, SCHEMA))


def test_counts_of_each_group_add_up_and_an_image_without_any_is_background(tmp_path: Path) -> None:
    counting = _counting(tmp_path, 4)
    one = counting.masks([SLICE])
    counts = np.random.default_rng(0).integers(0, 9, (4, 2, 2, 2))
    _write(one.folder, 0, counts[0], None)
    _write(one.folder, 1, counts[2], counts[3])
    found = counting.read(one)
    assert found.num_images == 4
    assert found.truth.tolist() == counting.true_pixels.tolist()
    assert [found.counts[:, group].tolist() for group in (0, 2, 3)] == [counts[group].tolist() for group in (0, 2, 3)]
    assert found.counts[:, 1, INTERSECTION].tolist() == [[2, 0]] * 2
    assert found.counts[:, 1, PREDICTED].tolist() == [[5, 0]] * 2


def test_groups_do_not_grow_with_the_images(tmp_path: Path) -> None:
    counting = replace(_counting(tmp_path, 2), true_pixels=np.ones((3 * MAX_GROUPS, 2), np.int64))
    assert counting.empty(counting.masks([SLICE])).counts.shape == (2, MAX_GROUPS, 2, 2)


def test_pass_that_stopped_early_is_read_up_to_its_last_complete_part(tmp_path: Path) -> None:
    counting = _counting(tmp_path, 40)
    one = counting.masks([SLICE])
    for shard in (0, 1, 2, 3, 4, 7):
        _write(one.folder, shard, None, None)
    assert counting.parts()[:2] == [[0, 1, 2], [3, 4, 5]]
    assert counting.read(one).num_images == 6


def test_passes_that_differ_have_their_own_folders(tmp_path: Path) -> None:
    counting = _counting(tmp_path, 4)
    slices = [SLICE, replace(SLICE, beta=3.0), replace(SLICE, alphas=(1.0,)), replace(SLICE, scales=(0.5,))]
    folders = [counting.masks([one]).folder for one in slices] + [counting.masks(slices).folder]
    seeds = [counting.seeds(pairs, SeedConfig()).folder for pairs in (((1.0, 2.0),), ((1.0, 4.0),))]
    assert len({*folders, *seeds}) == 7
    same = counting.seeds(((1.0, 2.0),), SeedConfig(alpha_low=0.5)).folder
    assert same == seeds[0]


def test_trial_with_too_many_errors_is_refused_and_only_their_shards_are_counted_again(tmp_path: Path) -> None:
    counting = _counting(tmp_path, 4)
    one = counting.masks([SLICE])
    _write(one.folder, 0, None, None)
    check_trial(counting, SLICE)
    table = {"image_id": ["2", "3"], "counts": [None, None], "error": ["crf: cannot be read", None]}
    write_shard(one.folder, 1, pa.table(table, SCHEMA))
    lenient = replace(counting.config, max_error_fraction=0.25)
    check_trial(replace(counting, config=lenient), SLICE)
    with pytest.raises(
        TooManyErrors, match=r"^1 of 4 images ended in an error \(crf: 1\), more than max_error_fraction"
    ):
        check_trial(counting, SLICE)
    assert stale(counting.config, counting.maps, Tally(one.folder)) == [1]
    assert stale(lenient, counting.maps, Tally(one.folder)) == []
