"""Tags of VOC masks in ids and in colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.imaging.codecs import encode_mask
from tests.engine.imports.examples import imported, refused, tags_of, write_pictures

LABEL_MAP = "# label:color_rgb:parts:actions\nleaf:48,112,32::\nbackground:0,0,0::\nstone:255,255,255::\n"


def _write(folder: Path, masks: dict[str, Image.Image | bytes], label_map: str = "") -> Path:
    write_pictures(folder / "JPEGImages", *(f"{name}.jpg" for name in masks))
    for name, mask in masks.items():
        path = folder / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(mask, bytes):
            path.write_bytes(mask)
        else:
            mask.save(path)
    if label_map:
        (folder / "labelmap.txt").write_text(label_map)
    return folder


def _of_colors(*colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([colors], dtype=np.uint8))


def _grey(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=np.uint8))


def test_label_map_names_the_colors_whatever_its_order(tmp_path: Path) -> None:
    green, void = (48, 112, 32), (224, 224, 192)
    masks: dict[str, Image.Image | bytes] = {
        "a": _of_colors((0, 0, 0), green, void),
        "b": _of_colors((0, 0, 0), (255, 255, 255), green).quantize(),
        "c": _grey(0, 255),
        "d": _of_colors((0, 0, 0)),
    }
    rows, names = imported(_write(tmp_path, masks, LABEL_MAP), "voc", tmp_path)
    assert names == ["leaf", "stone"]
    assert tags_of(rows) == {"a": ["leaf"], "b": ["leaf", "stone"], "c": ["stone"], "d": []}


def test_background_of_a_label_map_may_have_any_color(tmp_path: Path) -> None:
    masks: dict[str, Image.Image | bytes] = {"a": _of_colors((90, 60, 30), (48, 112, 32))}
    source = _write(tmp_path, masks, LABEL_MAP.replace("background:0,0,0", "background:90,60,30"))
    assert tags_of(imported(source, "voc", tmp_path)[0]) == {"a": ["leaf"]}


def test_color_that_nothing_names_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks: dict[str, Image.Image | bytes] = {"a": _of_colors((0, 0, 0), (1, 2, 3))}
    line = refused(_write(tmp_path, masks), "voc", tmp_path, capsys)
    assert "a.png' holds the colour (1, 2, 3), which is that of no class of VOC's palette; add a labelmap.txt" in line
    line = refused(_write(tmp_path, masks, LABEL_MAP), "voc", tmp_path, capsys)
    assert f"holds the colour (1, 2, 3), which is that of no class of {tmp_path}/labelmap.txt" in line
    line = refused(_write(tmp_path, masks, "leaf:1,2"), "voc", tmp_path, capsys)
    assert "labelmap.txt' has the line 'leaf:1,2'; a line is name:red,green,blue::" in line


def test_masks_in_the_colors_of_voc_are_read_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dog_and_cat, person = ((64, 0, 128), (0, 0, 0), (64, 0, 0)), (192, 128, 128)
    in_other_order = _grey(0, 1, 2)
    in_other_order.putpalette([channel for color in dog_and_cat for channel in color])
    own_palette = _grey(0, 15)
    own_palette.putpalette([channel for value in range(16) for channel in (value, value, value)])
    masks: dict[str, Image.Image | bytes] = {
        "rgb": _of_colors(person, (0, 0, 0), (224, 224, 192)),
        "palette": in_other_order,
        "grey": own_palette,
        "voc": encode_mask(np.array([[0, 20, 255]], dtype=np.uint8)),
    }
    rows, _ = imported(_write(tmp_path, masks), "voc", tmp_path)
    assert tags_of(rows) == {"grey": ["person"], "palette": ["cat", "dog"], "rgb": ["person"], "voc": ["tvmonitor"]}
    said = capsys.readouterr().out
    assert "masks with VOC's colors in another order (read by color): 1, such as " in said


def test_masks_of_0_and_255_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks: dict[str, Image.Image | bytes] = {"a": _grey(0, 255), "b": _grey(0)}
    assert "has only masks of 0 (background) and 255 (ignore); " in refused(
        _write(tmp_path, masks), "voc", tmp_path, capsys
    )
    imported(_write(tmp_path, {"b": _grey(0, 1)}), "voc", tmp_path)
