"""What ``data`` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from engine.storage.sources.find import find_source


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("t/{00000..00002}.tar", ["t/00000.tar", "t/00001.tar", "t/00002.tar"]),
        ("t/{a,00001}.tar", ["t/a.tar", "t/00001.tar"]),
        ("t/*.tar", ["t/00000.tar", "t/00001.tar", "t/a.tar"]),
        ("t/0000?.tar", ["t/00000.tar", "t/00001.tar"]),
        ("*/a*.tar", ["t/a.tar", "u/a1.tar"]),
        ("{t,u}/a*.tar", ["t/a.tar", "u/a1.tar"]),
        ("t", ["t/00000.tar", "t/00001.tar", "t/a.tar"]),
        ("t/", ["t/00000.tar", "t/00001.tar", "t/a.tar"]),
        ("spark.parquet", ["spark.parquet/part-0.parquet"]),
        ("t/00000.parquet", ["t/00000.parquet"]),
        ("odd/{1..2}*.tar", ["odd/{1..2}*.tar"]),
    ],
)
def test_files_come_in_order(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    _touch(tmp_path, "t/00000.tar", "t/00001.tar", "t/a.tar", "t/00000.parquet", "t/00000_stats.json", "u/a1.tar")
    _touch(tmp_path, "spark.parquet/part-0.parquet", "spark.parquet/_SUCCESS", "odd/{1..2}*.tar")
    source = find_source(str(tmp_path / pattern) + ("/" if pattern.endswith("/") else ""))
    assert [str(Path(file).relative_to(tmp_path)) for file in source.files] == expected


def test_names_are_seen_from_what_all_files_share(tmp_path: Path) -> None:
    _touch(tmp_path, "data/a/0.tar", "data/b/0.tar")
    source = find_source(f"{tmp_path}/data/*/0.tar")
    assert [source.name_of(file) for file in source.files] == ["a/0.tar", "b/0.tar"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("none-*.tar", "matches no file"),
        ("*.csv", "must match only .tar or only .parquet files"),
        ("*", "must match only .tar or only .parquet files"),
        ("empty", "a folder of .tar or .parquet files"),
        ("nothing", "a folder of .tar or .parquet files"),
        ("{0..9999999}.tar", "names more than"),
    ],
)
def test_what_names_no_source_is_one_sentence(tmp_path: Path, data: str, sentence: str) -> None:
    _touch(tmp_path, "a.csv", "b.csv", "c.tar", "empty/x.jpg")
    with pytest.raises(UserError, match=r"^data") as caught:
        find_source(str(tmp_path / data))
    assert sentence in str(caught.value)
