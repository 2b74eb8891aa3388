"""What a training job accepts as the output of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine.runs.inputs import made_with, shard_source

from engine.errors import ConfigError, StorageError, UserError
from engine.imaging.codecs import encode_mask
from engine.presets import preset
from engine.records import mask_schema, seed_schema, shard_table
from engine.runs.options import DataOptions
from engine.runs.shards import Claimed, claim
from engine.runs.training import split
from engine.storage.shards import write_shard
from engine.storage.subsets import is_held_out
from jobs import train_affinity
from jobs.label import Label
from jobs.make_seeds import MakeSeeds


def _data(folder: Path, num_images: int = 5) -> str:
    folder.mkdir()
    (folder / "manifest.csv").write_text("image,tags\n" + "".join(f"{n}.png,cat\n" for n in range(num_images)))
    return str(folder / "manifest.csv")


def _made(out: Path, data: str, job: str, *, shards: int = 3) -> Claimed:
    """An output of two rows a shard, as a job leaves it, of which the first shards are done."""
    claimed = claim(job, DataOptions(data=data, out=str(out)), {}, {}, rows_per_shard=2)
    column = "seed" if job == "make_seeds" else "mask"
    schema = seed_schema(metadata={}) if column == "seed" else mask_schema(keep_stages=False, metadata={})
    for shard in range(shards):
        rows = claimed.manifest.read_shard(shard)
        count = len(rows["image_id"])
        empty = {name: [None] * count for name in ("height", "width", "areas")}
        sure = {"confidence": [0.2 * (2 * shard + row) for row in range(count)]}
        pngs = [encode_mask(np.zeros((4, 4), dtype=np.uint8))] * count
        write_shard(str(out), shard, shard_table({**rows, **empty, **sure, column: pngs}, schema))
    return claimed


def test_complete_output_is_accepted_and_says_what_it_was_made_from(tmp_path: Path) -> None:
    data = _data(tmp_path / "data")
    claimed = _made(tmp_path / "seeds", data, "make_seeds")
    made = made_with(str(tmp_path / "seeds"), ("make_seeds",), "--seeds", data=data)
    assert made.hash == claimed.hash
    options = DataOptions(data=data, out=str(tmp_path / "affinity"), max_pixels=77)
    source = shard_source(options, made, str(tmp_path / "seeds"), "seed", grid_stride=8)
    assert (source.rows_of_shards, source.num_classes, source.max_pixels) == ((2, 2, 1), 1, 77)


def test_training_counts_the_images_whose_masks_are_sure(tmp_path: Path) -> None:
    data, out = _data(tmp_path / "data"), str(tmp_path / "masks")
    made = _made(tmp_path / "masks", data, "label")
    options = DataOptions(data=data, out=out)

    def counted(least: float, fraction: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        source = shard_source(options, made, out, "mask", min_confidence=least)
        source = split(source, made.manifest, fraction)
        return source.rows_of_shards, source.held_out_of_shards

    assert counted(0.0, 0.0) == ((2, 2, 1), ())
    assert counted(0.3, 0.0) == ((0, 2, 1), (0, 0, 0))
    held_out = [is_held_out(f"{number}.png", 0.5) for number in range(5)]
    learned, scored = counted(0.3, 0.5)
    assert sum(scored) == sum(held_out)  # unsure or not, what is held out is scored
    assert sum(learned) == sum(not held_out[number] for number in (2, 3, 4))
    with pytest.raises(ConfigError, match=r"--min-confidence is 0\.9, which no mask reaches"):
        counted(0.9, 0.0)


@pytest.mark.parametrize(
    ("shards", "words"), [(2, "where 1 of 3 shards are missing; run jobs.make_seeds again"), (-1, "has no run.json")]
)
def test_output_that_is_not_complete_is_refused(shards: int, words: str, tmp_path: Path) -> None:
    data = _data(tmp_path / "data")
    if shards >= 0:
        _made(tmp_path / "seeds", data, "make_seeds", shards=shards)
    with pytest.raises(StorageError, match="--seeds is ") as refused:
        made_with(str(tmp_path / "seeds"), ("make_seeds",), "--seeds", data=data)
    assert words in str(refused.value)


def test_shards_of_other_images_are_refused(tmp_path: Path) -> None:
    _made(tmp_path / "seeds", _data(tmp_path / "data"), "make_seeds")
    other = _data(tmp_path / "more", num_images=6)
    with pytest.raises(StorageError, match="--seeds was made from another manifest than --data"):
        made_with(str(tmp_path / "seeds"), ("make_seeds",), "--seeds", data=other)


def test_output_of_another_job_is_refused(tmp_path: Path) -> None:
    data = _data(tmp_path / "data")
    _made(tmp_path / "masks", data, "label")
    with pytest.raises(UserError, match="--seeds"):
        made_with(str(tmp_path / "masks"), ("make_seeds",), "--seeds", data=data)


def test_refusal_leaves_the_output_folder_free(tmp_path: Path) -> None:
    _made(tmp_path / "seeds", _data(tmp_path / "data"), "make_seeds")
    config = train_affinity.TrainAffinity(
        data=_data(tmp_path / "more", num_images=6),
        out=str(tmp_path / "affinity"),
        seeds=str(tmp_path / "seeds"),
        affinity_network=replace(preset("tiny").affinity, weights="random"),
    )
    with pytest.raises(StorageError, match="--seeds was made from another manifest"):
        train_affinity.run(config)
    assert not (tmp_path / "affinity" / "run.json").exists()


def test_manifest_that_cannot_be_used_leaves_the_output_folder_free(tmp_path: Path) -> None:
    data = _data(tmp_path / "data")
    Path(data).write_text("image,tags\na.png,cat\na.png,cat\n")  # the same image_id twice
    options = DataOptions(data=data, out=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"a\.png"):
        claim("label", options, {}, {}, rows_per_shard=2)
    Path(data).write_text("image,tags\na.png,cat\nb.png,cat\n")
    assert claim("label", options, {}, {}, rows_per_shard=2).manifest.num_rows == 2


def test_options_of_the_jobs_are_checked_alike() -> None:
    for job in (Label, MakeSeeds):
        with pytest.raises(UserError, match=r"--max-error-fraction is 1\.5; allowed: 0 to 1"):
            job(data="m", out="o", cam="c", max_error_fraction=1.5, **_parts(job))  # type: ignore[arg-type]


def _parts(job: type) -> dict[str, object]:
    tiny = preset("tiny")
    parts: dict[str, object] = {
        "cam_inference": tiny.cam.inference,
        "later_maps": tiny.later_maps,
        "affinity_inference": tiny.affinity.inference,
        "seed": tiny.seed,
        "walk": tiny.walk,
        "later_walk": tiny.later_walk,
        "crf": tiny.crf,
        "confidence": tiny.confidence,
        "shards": tiny.shards,
    }
    return {name: value for name, value in parts.items() if name in job.__dataclass_fields__}  # type: ignore[attr-defined]
