"""The dCRF benchmark times three ways to the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import crf


def test_photographs_of_the_usual_size_come_first(tmp_path: Path) -> None:
    for name, size in {"a": (40, 30), "b": crf.SIZE, "c": crf.SIZE}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "manifest.csv").write_text("image,tags\na.png,cat\nb.png,cat\nc.png,cat\n")
    assert [image.shape for image in crf.photographs(str(tmp_path / "manifest.csv"), 1)] == [(375, 500, 3)]
    (tmp_path / "small.csv").write_text("image,tags\na.png,cat\n")
    assert [image.shape for image in crf.photographs(str(tmp_path / "small.csv"), 1)] == [(30, 40, 3)]


def test_backends_agree_and_their_medians_are_summed_up() -> None:
    pytest.importorskip("pydensecrf")
    image = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    lines = [crf.measure([image], num_labels, 1, repeats=1) for num_labels in (2, 21)]
    assert all(line["worst_difference"] < 1e-3 for line in lines)
    assert all(line["equal_argmax"] == 1 for line in lines)
    assert crf.median_of(lines, 1) == {**lines[0], "K": "2-4"}
