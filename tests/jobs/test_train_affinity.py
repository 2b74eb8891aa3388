"""What jobs.train_affinity learns from, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageError
from engine.fitting.samples import SampleSource
from engine.presets import preset
from engine.runs.output import Claimed
from jobs import train_affinity
from tests.engine.runs.examples import write_data, write_output


def _config(root: Path, data: str) -> train_affinity.TrainAffinity:
    tiny = preset("tiny")
    return train_affinity.TrainAffinity(
        data=data,
        out=str(root / "affinity"),
        seeds=str(root / "seeds"),
        settings=replace(tiny, affinity=replace(tiny.affinity, weights="random")),
    )


def test_samples_are_those_of_the_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "data")
    write_output(tmp_path / "seeds", data, "make_seeds")
    found: list[SampleSource] = []

    def train(name: str, config: Any, images: Any, network: Any, samples: Any, *, made: Claimed, **_: Any) -> Any:
        manifest = made.manifest
        found.append(samples(manifest="", rows_of_shards=manifest.rows_of_shards, num_classes=1, max_pixels=77))

    monkeypatch.setattr(train_affinity, "train", train)
    train_affinity.run(_config(tmp_path, data))
    (source,) = found
    assert (source.target, source.shards, source.grid_stride) == ("seed", str(tmp_path / "seeds"), 8)
    assert source.rows_of_shards == (2, 2, 1)


def test_refusal_leaves_the_output_folder_free(tmp_path: Path) -> None:
    write_output(tmp_path / "seeds", write_data(tmp_path / "data"), "make_seeds")
    config = _config(tmp_path, write_data(tmp_path / "more", num_images=6))
    with pytest.raises(StorageError, match=r"^seeds '.*' was made from a manifest other than data"):
        train_affinity.run(config)
    assert not (tmp_path / "affinity" / "run.json").exists()
