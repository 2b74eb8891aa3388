"""A remote file read by ranged requests."""

from __future__ import annotations

from engine.storage.ranged_file import open_ranged


def test_any_part_of_a_file_is_read() -> None:
    data = bytes(range(256)) * 10_000
    with open_ranged(len(data), lambda start, end: data[start:end]) as file:
        assert file.size() == len(data)
        assert file.read_at(5, 2_000_000) == data[2_000_000:2_000_005]
        file.seek(0)
        assert file.read() == data
