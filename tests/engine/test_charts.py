"""Charts as SVG and PNG."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from engine.charts import chart_style, draw_curve, new_figure, to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def falling(num_points: int = 5000) -> np.ndarray:
    steps = np.arange(num_points, dtype=np.float64)
    return np.column_stack([steps, np.exp(-steps / 500)])


def drawn(points: np.ndarray, label: str = "loss") -> str:
    with chart_style():
        figure = new_figure()
        axes = figure.add_subplot()
        draw_curve(axes, points)
        axes.set_xlabel("step $x$ & <y>")
        return to_svg(figure, label)


def test_a_chart_is_small_valid_svg_that_says_what_it_shows() -> None:
    svg = drawn(falling(), 'loss "of" <cam>')
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert (root.get("role"), root.get("aria-label")) == ("img", 'loss "of" <cam>')
    assert "step $x$ & <y>" in [text.text for text in root.iter(f"{SVG}text")]
    assert len(svg) < 10_000
    assert "<style" not in svg


def test_the_same_chart_is_the_same_bytes_and_charts_of_one_page_share_no_ids() -> None:
    assert drawn(falling()) == drawn(falling())
    ids = [set(re.findall(r'id="([^"]+)"', drawn(falling(), label))) for label in ("loss", "rate")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"#(\w{11})\b", drawn(falling()))) <= ids[0]


def test_every_colour_is_the_pages_and_the_ground_is_clear() -> None:
    svg = drawn(falling())
    colors = re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)
    assert {color for color in colors if color != "none"} <= {
        "var(--faint, #66686f)", "var(--line, #dddcd8)", "var(--accent, #2563c9)",
    }  # fmt: skip


def test_a_falling_curve_falls_on_the_screen_and_stays_inside() -> None:
    root = ElementTree.fromstring(drawn(falling()))
    paths = [path for path in root.iter(f"{SVG}path") if "--accent" in path.get("style", "")]
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", paths[0].get("d", "")), dtype=float)
    assert 20 < len(points) <= 240
    assert (np.diff(points[:, 0]) >= 0).all()
    assert (np.diff(points[:, 1]) >= 0).all()  # y grows downwards
    assert points.min() > 0
    assert points[:, 0].max() < 420
    assert points[:, 1].max() < 240


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 1e9], [1e9, 1e9 + 1]])
def test_odd_values_get_few_and_short_ticks(values: list[float]) -> None:
    root = ElementTree.fromstring(drawn(np.column_stack([np.arange(len(values)), values])))
    ticks = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert 3 <= len(ticks) <= 15
    assert max(map(len, ticks)) <= len("step $x$ & <y>")


def test_a_positive_curve_starts_at_zero_unless_that_would_flatten_it() -> None:
    with chart_style():
        low, high = (new_figure().add_subplot() for _ in range(2))
        draw_curve(low, np.array([[0, 1.0], [1, 3.0]]))
        draw_curve(high, np.array([[0, 2.0], [1, 3.0]]))
    assert low.get_ylim()[0] == 0
    assert high.get_ylim()[0] > 1


def test_a_group_id_with_a_blank_becomes_a_tooltip() -> None:
    with chart_style():
        figure = new_figure()
        figure.add_subplot().bar([0], [1])[0].set_gid("0 to 5 %: 1 images")
        root = ElementTree.fromstring(to_svg(figure, "bars"))
    assert [title.text for title in root.iter(f"{SVG}title")] == ["0 to 5 %: 1 images"]


def test_half_a_surrogate_pair_in_a_name_is_replaced() -> None:
    assert 'aria-label="a?b"' in drawn(falling(), "a\udc80b")


def test_png_has_the_size_of_the_figure_on_white() -> None:
    with chart_style():
        figure = new_figure(300, 200)
        draw_curve(figure.add_subplot(), falling(10))
        picture = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    assert picture.size == (300, 200)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert len(picture.getcolors(60_000) or []) > 10


def test_importing_loads_no_matplotlib() -> None:
    code = "import sys, engine.charts, engine.fitting.curves, engine.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
