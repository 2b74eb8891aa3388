"""Fetching images."""

from __future__ import annotations

from pathlib import Path

from engine.records import Batch
from engine.stages.fetch import FetchImages


def test_missing_file_becomes_an_error_row_and_costs_no_other(tmp_path: Path) -> None:
    for number in (0, 2):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    uris = [str(tmp_path / f"{number}.png") for number in range(3)] + [str(tmp_path)]
    batch: Batch = {"image_id": ["a", "b", "c", "d"], "uri": uris, "error": [None] * 4}
    out = FetchImages(threads=2)(batch)
    assert out["encoded"] == [b"\0", None, b"\2", None]
    assert out["error"][0] is out["error"][2] is None
    assert all(out["error"][row].startswith("fetch: ") for row in (1, 3))
    assert "1.png" in out["error"][1]
    assert "uri" not in out
    assert out["image_id"] == ["a", "b", "c", "d"]
    assert batch["error"] == [None] * 4


def test_row_with_an_error_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    batch = {"uri": [str(tmp_path / "a.png"), ""], "error": ["manifest: tag 'x' is not among the classes", "other"]}
    out = FetchImages(threads=2)(batch)
    assert out["encoded"] == [None, None]
    assert out["error"] == batch["error"]


def test_size_that_is_known_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    out = FetchImages(threads=1)({"uri": [str(tmp_path / "a.png")], "error": [None], "height": [3], "width": [4]})
    assert (out["height"], out["width"]) == ([3], [4])


def test_columns_that_are_empty_yet_are_not_one_list() -> None:
    out = FetchImages(threads=1)({"uri": [], "error": []})
    assert out["height"] is not out["width"]
