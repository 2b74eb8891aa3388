"""File names from image ids."""

from __future__ import annotations

import re
from urllib.parse import unquote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.export.names import plan_names


def _names(*image_ids: str) -> list[str]:
    naming = plan_names(lambda: image_ids)
    return [naming.name_of(image_id) for image_id in image_ids]


def test_usual_ids_become_their_stems() -> None:
    assert _names("images/2007_000063.jpg", "images/2007_000392.png") == ["2007_000063", "2007_000392"]
    assert _names("s3://bucket/a/x.jpg", "s3://bucket/b/x.jpg") == ["a%2Fx", "b%2Fx"]
    assert _names("v1.0", "v1.1") == ["v1.0", "v1.1"]  # no ending of a picture


def test_folder_is_left_out_only_where_all_share_it() -> None:
    assert _names("photos/a.jpg", "photos/old/b.jpg") == ["a", "old%2Fb"]
    assert _names("ab/1", "abc/1") == ["ab%2F1", "abc%2F1"]


def test_endings_stay_where_ids_differ_in_them() -> None:
    assert _names("a.jpg", "a.png") == ["a.jpg", "a.png"]


def test_ids_that_differ_in_capitals_alone_keep_apart_where_the_disk_does_not_tell_them() -> None:
    first, second = _names("A.jpg", "a.jpg")
    assert first.lower() != second.lower()


def test_long_ids_end_in_a_hash() -> None:
    first, second = _names("x" * 300 + "1", "x" * 300 + "2")
    assert first != second
    assert max(len(first), len(second)) < 200


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=6, unique=True))
@example(["../../etc/passwd", "..", ".", "/", "a/../b", "", "q\"uo'te", "sp ace", "new\nline", "nul\0", "名前.jpg"])
@example(["con%2Fa", "con/a"])
def test_no_id_leaves_the_folder_or_shares_a_name(image_ids: list[str]) -> None:
    naming = plan_names(lambda: image_ids)
    names = _names(*image_ids)
    assert len({name.lower() for name in names}) == len(names)
    for name, image_id in zip(names, image_ids, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9_%-][A-Za-z0-9_.%-]*", name)
        assert not name.endswith(".")
        if naming.keeps_ending and not naming.hashed and len(name) <= 160 and image_id != naming.folder:
            assert naming.folder + unquote(name) == image_id
