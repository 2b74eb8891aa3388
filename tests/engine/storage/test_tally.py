"""What is done, and with which errors, without opening every shard."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.records import mask_schema, shard_table
from engine.storage.shards import shard_path, write_shard
from engine.storage.tally import Tally


def _commit(folder: str, shard: int, *errors: str | None) -> None:
    schema = mask_schema(keep_stages=False, metadata={})
    columns = {name: [None] * len(errors) for name in schema.names}
    names = [f"{shard}-{row}" for row in range(len(errors))]
    write_shard(
        folder, shard, shard_table({**columns, "image_id": names, "image": names, "error": list(errors)}, schema)
    )


def test_only_shards_that_the_tally_does_not_know_are_read(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for shard in (0, 1, 2, 5):
        _commit(folder, shard, "fetch: gone" if shard == 1 else None, "decode: odd" if shard > 1 else None)
    tally = Tally(folder)
    assert (tally.shards, tally.errors) == ({0, 1, 2, 5}, Counter(fetch=1, decode=2))
    tally.save()
    for shard in (0, 1, 2):
        Path(shard_path(folder, shard)).write_bytes(b"not read again")
    Path(shard_path(folder, 5)).unlink()
    _commit(folder, 9, None, "fetch: gone")
    again = Tally(folder)
    assert (again.shards, again.errors) == ({0, 1, 2, 9}, Counter(fetch=2, decode=1))


def test_shards_with_errors_can_be_taken_as_not_done_also_after_a_kill(tmp_path: Path) -> None:
    folder = str(tmp_path)
    _commit(folder, 0, None)
    _commit(folder, 1, "fetch: gone")
    tally = Tally(folder)
    tally.save()
    tally.forget_errors()
    assert (tally.shards, tally.errors) == ({0}, Counter())
    _commit(folder, 1, None)  # done again, and killed before the tally was written
    assert (Tally(folder).shards, Tally(folder).errors) == ({0, 1}, Counter())


def test_damaged_tally_costs_a_look_into_the_shards(tmp_path: Path) -> None:
    folder = str(tmp_path)
    _commit(folder, 3, "fetch: gone")
    for text in ('{"shards": [[1]], "errors": {}}', "{", '{"shards": 1}', '{"shards": [], "errors": []}'):
        (tmp_path / ".tag2mask").mkdir(exist_ok=True)
        (tmp_path / ".tag2mask" / "tally.json").write_text(text)
        assert (Tally(folder).shards, Tally(folder).errors) == ({3}, Counter(fetch=1))
    Path(shard_path(folder, 3)).write_bytes(b"damaged")
    with pytest.raises(StorageError):
        Tally(folder)
