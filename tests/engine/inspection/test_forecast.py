"""The estimate of a run, which it measures on a few scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import RoundsConfig
from engine.inspection.forecast import forecast
from engine.inspection.pictures import sample_rows
from engine.scenes import CLASS_NAMES, write_scenes
from engine.storage.manifest import freeze_manifest
from tests.jobs.small_runs import small_settings


@pytest.mark.slow
def test_estimate_grows_with_epochs_and_images(tmp_path: Path) -> None:
    write_scenes(str(tmp_path), 6, rng_seed=0, width=96, height=96)
    folder = str(tmp_path / "frozen")
    manifest = freeze_manifest(str(tmp_path / "manifest.csv"), folder, rows_per_shard=3, class_names=tuple(CLASS_NAMES))
    settings = replace(small_settings(), rounds=RoundsConfig(num_rounds=2, last_epoch_factor=2.0))
    rows = sample_rows(manifest, 4)
    many = replace(manifest, num_rows=6_000_000)  # the same images a million times
    found = forecast(settings, folder, rows, many, num_cores=2, max_pixels=10**8)
    assert set(found.seconds) == {"cam", "seeds", "affinity", "masks", "later masks", "segmentation"}
    assert min(found.seconds.values()) > 0
    assert found.gpu_hours == 0
    assert sum(found.seconds.values()) * 2 == pytest.approx(found.core_hours * 3600, rel=1e-3)
    assert found.to_dict()["total_s"] == sum(found.seconds.values())
    assert 6_000_000 * 100 < found.disk_bytes < 6_000_000 * 10_000  # a few small PNGs for each
    assert 1 << 30 < found.memory_bytes < 20 << 30
