"""Read and write shards: one Parquet file each, directly in the output folder.

A shard is written atomically, and its bytes depend on its rows alone, so an interrupted and resumed run ends with the
same files as an uninterrupted one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.errors import StorageError
from engine.storage import filesystem
from engine.storage.plain_columns import check_plain
from engine.storage.retries import readable, retry

_NAME = re.compile(r"^shard-(\d{6,})\.parquet$")
_ROWS_PER_GROUP = 16384
_ZSTD_LEVEL = 3
_FOOTER_THREADS = 16


def shard_name(shard: int) -> str:
    """Return the file name of a shard: ``shard-000000.parquet``."""
    return f"shard-{shard:06d}.parquet"


def shard_path(folder: str, shard: int) -> str:
    """Return the location of a shard."""
    return filesystem.join(folder, shard_name(shard))


def committed_shards(folder: str) -> set[int]:
    """List the numbers of the existing shards; empty if the folder does not exist.

    Raises:
        StorageError: The folder cannot be listed.
    """
    names = filesystem.list_names(folder, prefix="shard-", suffix=".parquet")
    return {int(match.group(1)) for match in map(_NAME.match, names) if match}


def write_shard(folder: str, shard: int, table: pa.Table) -> None:
    """Commit the rows of one shard; the same rows give the same bytes.

    Raises:
        StorageError: The shard cannot be written.
    """
    buffer = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        buffer,
        row_group_size=_ROWS_PER_GROUP,
        version="2.6",
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=False,
        # statistics of encoded images would be as large as the images
        write_statistics=[name for name in ("image_id", "confidence") if name in table.column_names],
        write_batch_size=1024,
        data_page_size=1 << 20,
        store_schema=True,
    )
    filesystem.write_bytes(shard_path(folder, shard), buffer.getvalue())


def read_shard(folder: str, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one shard.

    Args:
        folder: The output folder.
        shard: Number of the shard.
        columns: Columns to read; None reads all.

    Raises:
        StorageError: The shard or a column is missing, or the shard is damaged.
    """
    location = shard_path(folder, shard)

    def read(file: pq.ParquetFile) -> pa.Table:
        missing = [name for name in columns or () if name not in file.schema_arrow.names]
        if missing:
            raise StorageError(
                f"'{location}' has no column '{missing[0]}' (it has: {', '.join(file.schema_arrow.names)})"
            )
        return file.read(columns=None if columns is None else list(columns), use_threads=False)

    return _with_file(location, read)


def read_shards(folder: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read the shards of a folder one by one, in order.

    Raises:
        StorageError: As :func:`read_shard`; also if the folder contains no shard.
    """
    for shard in _some_shards(folder):
        yield read_shard(folder, shard, columns)


def read_schema(folder: str) -> pa.Schema:
    """Read the schema of the first shard, with the file's metadata.

    Raises:
        StorageError: as :func:`read_shards`.
    """
    return _with_file(shard_path(folder, _some_shards(folder)[0]), lambda file: file.schema_arrow)


def open_dataset(folder: str | Path) -> pads.Dataset:
    """The shards of a folder, local or on S3, as a pyarrow dataset, which DuckDB, polars and pandas query.

    Readers that take a folder whole stumble over ``run.json`` and ``summary.json`` beside the shards; this names the
    shards alone, with endpoint and credentials of the usual AWS variables.

    Raises:
        StorageError: as :func:`read_shards`.
    """
    folder = filesystem.as_location(folder, "masks")
    opened, path = filesystem.open_filesystem(folder)
    files = [filesystem.join(path, shard_name(shard)) for shard in _some_shards(folder)]
    return pads.dataset(files, filesystem=opened, format="parquet")


def count_rows(folder: str) -> int:
    """Count the rows of all shards, from their footers.

    Raises:
        StorageError: as :func:`read_shards`.
    """

    def count(shard: int) -> int:
        return int(_with_file(shard_path(folder, shard), lambda file: file.metadata.num_rows))

    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return sum(pool.map(count, _some_shards(folder)))


def _some_shards(folder: str) -> list[int]:
    shards = sorted(committed_shards(folder))
    if not shards:
        raise StorageError(
            f"'{folder}' contains no shards (shard-000000.parquet, ...); give the output folder of a job"
        )
    return shards


def _with_file(location: str, use: Callable[[pq.ParquetFile], Any]) -> Any:
    def call() -> Any:
        opened, path = filesystem.open_filesystem(location)
        # not read_table, which would turn a folder `key=value` into a column
        with opened.open_input_file(path) as source:
            file = pq.ParquetFile(source, pre_buffer=not isinstance(opened, pafs.LocalFileSystem))
            check_plain(file.schema_arrow, file.schema_arrow.names)
            return use(file)

    with readable(location, "shard"):
        return retry(call, location)
