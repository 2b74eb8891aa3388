import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigError, OutputError, StorageError
from engine.imaging.codecs import decode_mask
from engine.scenes import CLASS_NAMES, make_scene, write_scenes


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    first, again = make_scene(3, 5), make_scene(3, 5)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]
    assert not np.array_equal(first[0], make_scene(3, 6)[0])
    assert not np.array_equal(first[0], make_scene(4, 5)[0])


def test_tags_are_the_classes_of_the_mask_and_objects_cover_a_fair_part() -> None:
    seen, empty, touching = set(), 0, 0
    for index in range(60):
        image, mask, tags = make_scene(0, index)
        assert image.shape == (180, 240, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (180, 240)
        assert mask.dtype == np.uint8
        assert tags == [CLASS_NAMES[class_id - 1] for class_id in np.unique(mask) if class_id]
        seen.update(tags)
        empty += not tags
        if tags:
            assert 0.05 < (mask > 0).mean() < 0.4
        left, right = mask[:, :-1], mask[:, 1:]
        touching += bool(((left != right) & (left > 0) & (right > 0)).any())
    assert seen == set(CLASS_NAMES)
    assert 1 <= empty <= 9
    assert touching >= 1


@pytest.mark.parametrize(("width", "height"), [(96, 96), (320, 120), (120, 320)])
def test_scenes_of_other_shapes_hold_objects_too(width: int, height: int) -> None:
    scenes = [make_scene(1, index, width=width, height=height) for index in range(10)]
    assert all(image.shape == (height, width, 3) for image, _, _ in scenes)
    assert np.mean([(mask > 0).mean() for _, mask, _ in scenes]) > 0.08


def test_a_body_stands_off_from_its_background() -> None:
    distances = []
    for index in range(30):
        image, mask, tags = make_scene(0, index)
        if tags:
            distances.append(np.linalg.norm(image[mask > 0].mean(0) - image[mask == 0].mean(0)))
    assert np.median(distances) > 50


def test_the_folder_holds_a_manifest_with_images_and_truth(tmp_path: Path) -> None:
    summary = write_scenes(tmp_path / "scenes", 12, rng_seed=0, width=120, height=96)
    assert summary["written"]
    rows = list(csv.DictReader(Path(summary["manifest"]).read_text().splitlines()))
    assert len(rows) == 12
    assert (tmp_path / "scenes" / "classes.txt").read_text().split() == list(CLASS_NAMES)
    for index, row in enumerate(rows):
        image, mask, tags = make_scene(0, index, width=120, height=96)
        assert row["tags"] == ";".join(tags)
        picture = tmp_path / "scenes" / row["image"]
        truth = decode_mask((Path(summary["truth"]) / f"{picture.stem}.png").read_bytes())
        assert np.array_equal(truth, mask)
        with Image.open(picture) as decoded:
            assert np.abs(np.asarray(decoded).astype(float) - image).mean() < 8


def test_the_same_settings_write_once_and_others_replace_the_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path, 6, width=96, height=96)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write_scenes(tmp_path, 6, width=96, height=96)["written"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert write_scenes(tmp_path, 2, width=96, height=96)["written"]
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert len(list((tmp_path / "truth").iterdir())) == 2


def test_half_a_set_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def crash(*args: Any, **settings: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make_scene(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("engine.scenes.make_scene", crash)
        with pytest.raises(KeyboardInterrupt):
            write_scenes(tmp_path, 4, width=96, height=96)
    assert write_scenes(tmp_path, 4, width=96, height=96)["written"]
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(OutputError, match="other than synthetic scenes"):
        write_scenes(tmp_path, 2)
    assert (tmp_path / "images" / "mine.jpg").read_bytes() == b"precious"


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("a file")
    with pytest.raises((OutputError, StorageError)):
        write_scenes(tmp_path / "scenes", 2)


@pytest.mark.parametrize("settings", [{"num_images": 0}, {"width": 5}, {"height": 5}, {"rng_seed": -1}])
def test_settings_out_of_range_are_named_and_nothing_is_written(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))} must be"):
        write_scenes(tmp_path / "scenes", **{"num_images": 2, **settings})
    assert not (tmp_path / "scenes").exists()
