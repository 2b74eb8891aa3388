"""Oxford-IIIT Pet in the layout of torchvision: a manifest and true masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.imaging.codecs import decode_mask
from engine.storage.truth import open_truth
from tests.engine.export.examples import jpeg
from tests.engine.imports.examples import imported, refused, tags_of

NAMES = ("Abyssinian_100", "great_pyrenees_12", "Abyssinian_7")


def _write(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    (folder / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    trimap = np.full((6, 8), 2, np.uint8)
    trimap[1:4, 1:5], trimap[2, 2] = 3, 1
    for name in NAMES:
        (folder / "images" / f"{name}.jpg").write_bytes(jpeg(6, 8))
        (folder / "images" / f"{name}.mat").write_bytes(b"")
        Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")


@pytest.mark.parametrize("inner", ["oxford-iiit-pet", "."])
def test_pets_have_their_breed_as_tag_and_masks_from_the_trimaps(
    inner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / inner)
    rows, names = imported(tmp_path, "pets", tmp_path)
    assert names == ["abyssinian", "great pyrenees"]
    assert tags_of(rows) == {
        "Abyssinian_100": ["abyssinian"],
        "Abyssinian_7": ["abyssinian"],
        "great_pyrenees_12": ["great pyrenees"],
    }
    mask = decode_mask((tmp_path / "truth" / "great_pyrenees_12.png").read_bytes())
    assert np.unique(mask, return_counts=True)[0].tolist() == [0, 2, 255]
    assert (mask[2, 2], mask[1, 1], mask[0, 0]) == (2, 255, 0)
    truth = open_truth(str(tmp_path / "truth")).mask_of("Abyssinian_7", "images/Abyssinian_7.jpg")
    assert truth is not None
    assert truth[2, 2] == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Next: tag2mask run --data {tmp_path / 'manifest.csv'} --truth {tmp_path / 'truth'} --out runs/mine"
    )


def test_folder_without_pets_and_trimap_that_is_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    assert "contains no images; give the folder with oxford-iiit-pet" in refused(tmp_path, "pets", tmp_path, capsys)
    (tmp_path / "images").rmdir()
    _write(tmp_path)
    (tmp_path / "annotations" / "trimaps" / "Abyssinian_7.png").write_bytes(b"none")
    assert "Abyssinian_7.png' is not a readable trimap" in refused(tmp_path, "pets", tmp_path, capsys)


def test_download_is_for_pets_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--download is for pets, not for voc" in refused(tmp_path, "voc", tmp_path, capsys, "--download")
