"""Finished runs, and the parts of their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import StorageError
from engine.plain_settings import to_dict, with_part
from engine.presets import preset
from engine.storage.run_record import RECORD_NAME, write_json
from experiments import finished_run
from experiments.finished_run import PARTS, images_with_truth, in_part, read_run

NUM_IMAGES = 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images, of which all but the first have truth."""
    (tmp_path / "truth").mkdir()
    for number in range(NUM_IMAGES):
        Image.new("RGB", (6, 5)).save(tmp_path / f"{number}.png")
        if number:
            Image.fromarray(np.full((5, 6), number % 3, dtype=np.uint8)).save(tmp_path / "truth" / f"{number}.png")
    rows = "".join(f"{number}.png,dog\n" for number in range(NUM_IMAGES))
    (tmp_path / "manifest.csv").write_text(f"image,tags\n{rows}")
    return tmp_path


def test_settings_are_the_presets_with_those_of_the_record(tmp_path: Path) -> None:
    settings = with_part(preset("tiny"), "walk.alpha", 7.0)
    options = {"data": "m.csv", "classes": "", "preset": "tiny", "truth": "truth"}
    record = {"job": "run", "settings": to_dict(settings), "options": options, "class_names": ["cat", "dog"]}
    write_json(str(tmp_path / RECORD_NAME), record)
    run = read_run(str(tmp_path))
    assert run.settings == settings
    assert (run.data, run.truth, run.class_names) == ("m.csv", "truth", ("cat", "dog"))
    assert run.location("round-1/masks") == str(tmp_path / "round-1" / "masks")


@pytest.mark.parametrize("job", ["label", None])
def test_folder_of_another_job_is_no_finished_run(tmp_path: Path, job: str | None) -> None:
    if job:
        write_json(str(tmp_path / RECORD_NAME), {"job": job})
    with pytest.raises(StorageError, match=r"no run\.json of a finished jobs\.run"):
        read_run(str(tmp_path))


def test_every_image_belongs_to_one_part() -> None:
    ids = [f"images/{number}.jpg" for number in range(300)]
    dev = [image_id for image_id in ids if in_part(image_id, "dev")]
    assert sorted(dev + [image_id for image_id in ids if in_part(image_id, "held")]) == sorted(ids)
    assert 70 < len(dev) < 130
    assert all(in_part(image_id, "all") for image_id in ids)


def test_images_with_truth_are_ready_for_a_chain(data: Path) -> None:
    found = list(images_with_truth(str(data / "manifest.csv"), str(data / "truth")))
    assert [one.image_id for one in found] == [f"{number}.png" for number in range(1, NUM_IMAGES)]
    assert found[1].mask.tolist() == np.full((5, 6), 2).tolist()
    batch = found[0].batch(("cat", "dog"))
    assert batch["encoded"] == [(data / "1.png").read_bytes()]
    assert (batch["class_ids"], batch["error"]) == ([[2]], [None])


def test_truth_is_divided_among_the_parts(data: Path) -> None:
    folders = finished_run.write_parts(str(data / "manifest.csv"), str(data / "truth"), data / "parts")
    assert set(folders) == set(PARTS)
    names = {part: {path.stem for path in Path(folder).iterdir()} for part, folder in folders.items()}
    assert names["dev"] | names["held"] == {str(number) for number in range(1, NUM_IMAGES)}
    assert all(in_part(f"{name}.png", part) for part in PARTS for name in names[part])
