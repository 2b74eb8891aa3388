"""Masks in colours against the masks that they were made of."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.imaging.codecs import class_color, encode_mask
from engine.imaging.mask_colors import VOC_COLORS, ids_by_color, read_label_map

MASK = np.array([[0, 3, 3], [255, 1, 20]], dtype=np.uint8)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _colored() -> Image.Image:
    return Image.open(io.BytesIO(encode_mask(MASK))).convert("RGB")


@pytest.mark.parametrize("kind", ["VOC's palette", "RGB", "RGBA", "palette by first use"])
def test_colors_give_the_ids_back_in_every_kind_of_png(kind: str) -> None:
    image = _colored()
    if kind == "palette by first use":
        colors = [class_color(int(class_id)) for class_id in dict.fromkeys(MASK.ravel().tolist())]
        place = {color: index for index, color in enumerate(colors)}
        indices = [[place[class_color(int(class_id))] for class_id in row] for row in MASK]
        image = Image.fromarray(np.array(indices, np.uint8))
        image.putpalette([channel for color in colors for channel in color])
    png = encode_mask(MASK) if kind == "VOC's palette" else _png(image.convert("RGBA") if kind == "RGBA" else image)
    np.testing.assert_array_equal(ids_by_color(png, VOC_COLORS), MASK)


def test_color_of_no_class_is_named() -> None:
    with pytest.raises(ValueError, match=r"holds the colour \(0, 64, 128\), which is that of no class"):
        ids_by_color(_png(_colored()), {color: class_id for color, class_id in VOC_COLORS.items() if class_id != 20})
    with pytest.raises(ValueError, match="is a picture of mode I;16"):
        ids_by_color(encode_mask(MASK.astype(np.uint16)), VOC_COLORS)


def test_label_map_gives_the_colors_of_its_lines() -> None:
    lines = (
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cat: 250, 50,83 ::",
        "",
        "big dog:::tail",
        "void:224,224,192::",
    )
    assert read_label_map("\n".join(lines)) == {
        "background": (0, 0, 0),
        "cat": (250, 50, 83),
        "big dog": class_color(2),
        "void": (224, 224, 192),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat:1,2::", "name:red,green,blue"),
        ("cat:red::", "has the line 'cat:red::'"),
        ("a:1,1,1::\nb:1,1,1::", "twice"),
    ],
)
def test_label_map_of_another_form_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_label_map(text)
