"""True masks against their images before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import StorageError
from engine.runs.truth_check import check_truth
from tests.engine.runs.examples import CLASS_NAMES, MASK, write_truth


def _data(folder: Path) -> str:
    """Images of the mask's size: one turned by its EXIF orientation, one that is gone, one without truth."""
    upright = Image.new("RGB", (4, 2))
    upright.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 4)).save(folder / "turned.jpg", exif=exif)
    upright.save(folder / "none.png")
    (folder / "manifest.csv").write_text("image,tags\na.png,cat\nturned.jpg,cat\ngone.png,cat\nnone.png,cat\n")
    return str(folder / "manifest.csv")


def _check(data: str, truth: str) -> dict[str, str]:
    return check_truth(data, truth, tuple(CLASS_NAMES), max_pixels=10**6, allow_outside=False)


def test_mask_that_lacks_the_orientation_is_found_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _data(tmp_path)
    truth = write_truth(tmp_path / "truth", {"a": MASK, "turned": MASK, "gone": MASK})
    assert _check(data, truth) == {}
    assert capsys.readouterr().err == ""
    write_truth(tmp_path / "truth", {"turned": MASK.T.copy()})
    assert list(_check(data, truth)) == ["turned.jpg"]
    assert capsys.readouterr().err.startswith("warning: true masks not scored: 1; 'turned.jpg': the true mask is 2 x 4")
    for name in ("a", "gone"):
        (tmp_path / "truth" / f"{name}.png").unlink()
    with pytest.raises(StorageError, match=r"^truth '.*' has no mask of its image's size"):
        _check(data, truth)


def test_truth_that_scores_nothing_is_refused(tmp_path: Path) -> None:
    data = _data(tmp_path)
    truth = write_truth(tmp_path / "truth", {"a": np.where(MASK > 0, 255, 0).astype(np.uint8)})
    with pytest.raises(StorageError, match=r"has no class in 1 masks.* add a labelmap.txt with the line cat:255"):
        _check(data, truth)
    with pytest.raises(StorageError, match=r"the mask of 'a\.png' does not match its truth: .*got 9"):
        _check(data, write_truth(tmp_path / "truth", {"a": np.full_like(MASK, 9)}))
    with pytest.raises(StorageError, match="has no mask for any image in data"):
        _check(data, write_truth(tmp_path / "other", {"z": MASK}))
