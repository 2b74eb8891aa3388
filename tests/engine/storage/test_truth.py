"""True masks are found by stem or by the whole id, and no two images share one unnoticed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import StorageError
from engine.export import plan_names
from engine.imaging.codecs import encode_mask
from engine.storage.truth import open_truth


def _write(folder: Path, *names: str) -> str:
    """PNGs of one pixel, whose value is their place in the list."""
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_mask(np.full((1, 1), number, dtype=np.uint8)))
    return str(folder)


def _value(folder: str, image_id: str, image: str) -> int | None:
    mask = open_truth(folder).mask_of(image_id, image)
    return None if mask is None else int(mask[0, 0])


def test_mask_is_found_by_stem_and_by_id(tmp_path: Path) -> None:
    folder = _write(tmp_path, "one.png", "dog%2F2.png", "my id.png", "2.png")
    assert _value(folder, "photos/one.jpg", "photos/one.jpg") == 0
    assert _value(folder, "dog/2.jpg", "dog/2.jpg") == 1  # the whole id comes before the stem
    assert _value(folder, "cat/2.jpg", "cat/2.jpg") == 3
    assert _value(folder, "my id", "photos/7.jpg") == 2
    assert _value(folder, "none", "none.jpg") is None


def test_images_of_the_same_stem_are_told_from_each_other_or_refused(tmp_path: Path) -> None:
    truth = open_truth(_write(tmp_path, "1.png"))
    assert truth.mask_of("dog/1.jpg", "dog/1.jpg") is not None
    assert truth.mask_of("again", "dog/1.jpg") is not None  # one picture under two ids
    with pytest.raises(StorageError, match=r"'1.png' .* both 'dog/1.jpg' and 'cat/1.jpg'.*'cat%2F1.png'"):
        truth.mask_of("cat/1.jpg", "cat/1.jpg")


def test_stem_comes_before_an_id_that_has_nothing_to_do_with_it(tmp_path: Path) -> None:
    folder = _write(tmp_path, "0.png", "1.png", "2.png")
    assert _value(folder, "2", "1.jpg") == 1
    assert _value(folder, "1", "2.jpg") == 2
    assert _value(folder, "2", "9.jpg") == 2


def test_names_of_an_export_are_those_of_its_list(tmp_path: Path) -> None:
    ids = ["photos/dog 1.jpg", "photos/cat/1.jpg", "A.jpg", "a.jpg", "a~1.jpg"]
    naming = plan_names(lambda: iter(ids))
    (tmp_path / "masks").mkdir()
    folder = _write(tmp_path / "masks", *(f"{naming.name_of(image_id)}.png" for image_id in ids), "9.png")
    assert _value(folder, ids[0], ids[0]) is None  # by its stem, which the name escapes
    lines = [f"{naming.name_of(image_id)},{image_id},train" for image_id in ids]
    (tmp_path / "index.csv").write_text("\n".join(["name,image_id,subset", *lines]) + "\n")
    assert [_value(folder, image_id, image_id) for image_id in ids] == [0, 1, 2, 3, 4]
    assert _value(f"{folder}/", "photos/other.jpg", "photos/other.jpg") is None
    (tmp_path / "index.csv").write_text("id,path\n1,2\n")  # of something else
    assert _value(folder, "9.jpg", "9.jpg") == 5


def test_colour_of_no_class_is_refused_with_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "1.png")
    with pytest.raises(StorageError, match=r"1\.png' holds the colour \(1, 2, 3\)"):
        open_truth(str(tmp_path)).mask_of("1", "1.jpg")


def test_ending_may_be_in_capitals(tmp_path: Path) -> None:
    assert _value(_write(tmp_path, "0.png", "1.PNG"), "1.jpg", "1.jpg") == 1


@pytest.mark.parametrize("place", ["SegmentationClass/labelmap.txt", "labelmap.txt"])
def test_label_map_beside_the_masks_names_their_colours(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "SegmentationClass"
    folder.mkdir()
    Image.new("RGB", (2, 2), (250, 50, 83)).save(folder / "1.png")
    (tmp_path / place).write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:250,50,83::\n")
    mask = open_truth(str(folder), ("cat", "dog")).mask_of("1.jpg", "1.jpg")
    assert mask is not None
    assert mask.tolist() == [[2, 2], [2, 2]]
    (tmp_path / place).write_text("dog:red")
    with pytest.raises(StorageError, match=r"labelmap.txt' has the line 'dog:red'"):
        open_truth(str(folder))


def test_mask_beyond_pillows_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    mask = np.eye(20, dtype=np.uint8)
    (tmp_path / "1.png").write_bytes(encode_mask(mask))
    np.testing.assert_array_equal(open_truth(str(tmp_path)).mask_of("1", "1.jpg"), mask)


def test_mask_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    png = encode_mask(np.eye(20, dtype=np.uint8))
    size = png.index(b"IHDR") + 4
    claim = b"IHDR" + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[size + 8 : size + 13]
    huge = png[: size - 4] + claim + struct.pack(">I", zlib.crc32(claim)) + png[size + 17 :]
    for number, file in enumerate((huge, png[:-30], b"<html>", b"")):
        (tmp_path / f"{number}.png").write_bytes(file)
        with pytest.raises(StorageError, match=rf"truth '.*{number}\.png' cannot be read: \w"):
            open_truth(str(tmp_path)).mask_of(f"{number}", f"{number}.jpg")


def test_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds neither PNGs nor mask shards"):
        open_truth(str(tmp_path))
