"""The same pictures and tags as each kind of source."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.storage import filesystem

Sample = tuple[str, bytes, list[str]]
"""Name of the picture's file, its bytes, its tags."""


def samples(count: int = 7) -> list[Sample]:
    tags = [["cat", "dog"], [], ["dog"]]
    return [(f"{number:04d}.jpg", bytes([number]) * (1000 + number), tags[number % 3]) for number in range(count)]


def tar_bytes(members: list[tuple[str, bytes]], *, format: int = tarfile.USTAR_FORMAT, mtime: float = 0) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def webdataset(some: list[Sample], *, tags_in: str = "json", **options: Any) -> bytes:
    """A shard as img2dataset writes it, with the tags in the ``.json`` or the ``.txt``."""
    members: list[tuple[str, bytes]] = []
    for name, data, tags in some:
        key = name.removesuffix(".jpg")
        members.append((name, data))
        if tags_in == "json":
            members.append((f"{key}.json", json.dumps({"key": key, "tags": tags, "url": "http://x/a.jpg"}).encode()))
            members.append((f"{key}.txt", b"A caption; with a word or two."))
        else:
            members.append((f"{key}.txt", ";".join(tags).encode()))
    return tar_bytes(members, **options)


def parquet_bytes(some: list[Sample], *, struct: bool = True, row_group_size: int = 3) -> bytes:
    """Pictures as ``datasets`` embeds them, or as a plain binary column."""
    if struct:
        image = pa.array([{"bytes": data, "path": name} for name, data, _ in some])
    else:
        image = pa.array([data for _, data, _ in some], pa.binary())
    buffer = io.BytesIO()
    table = pa.table({"image": image, "tags": pa.array([tags for *_, tags in some], pa.list_(pa.string()))})
    pq.write_table(table, buffer, row_group_size=row_group_size)
    return buffer.getvalue()


def write_sources(folder: str | Path, some: list[Sample]) -> dict[str, str]:
    """Every kind of source under a folder or URI: a name for it, and what ``data`` is then."""
    folder = str(folder)
    half = len(some) // 2
    lines = "".join(f"files/{name},{';'.join(tags)}\n" for name, _, tags in some)
    files = {
        "m.csv": b"image,tags\n" + lines.encode(),
        **{f"files/{name}": data for name, data, _ in some},
        "tars/00000.tar": webdataset(some[:half]),
        "tars/00001.tar": webdataset(some[half:], tags_in="txt"),
        "tars/00000.parquet": b"img2dataset leaves its own table here",
        "parts/train-0.parquet": parquet_bytes(some[:half]),
        "parts/train-1.parquet": parquet_bytes(some[half:]),
        "plain.parquet": parquet_bytes(some, struct=False),
    }
    for name, data in files.items():
        filesystem.write_bytes(f"{folder}/{name}", data)
    return {
        "manifest": f"{folder}/m.csv",
        "tars": f"{folder}/tars/{{00000..00001}}.tar",
        "folder of tars": f"{folder}/tars",
        "parquet": f"{folder}/parts/train-*.parquet",
        "binary": f"{folder}/plain.parquet",
    }
