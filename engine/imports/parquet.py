"""Parquet of Hugging Face ``datasets``: a picture and its label, or labels, in each row.

Source: the metadata ``huggingface`` of the schema, which names the features: ``Image``, ``ClassLabel``, ``List``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StorageError, about
from engine.imports.found import Image, ImportedDataset
from engine.storage.filesystem import is_uri, join, list_names, open_filesystem, parent, write_bytes
from engine.storage.retries import readable

_BATCH_ROWS = 64
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


def read_parquet(source: str, *, images: str, out: str) -> ImportedDataset:
    """The rows of a file or of a folder's files; pictures that lie in the rows become files in ``out/images``.

    The column of pictures and the one of labels are known by their features; where these are missing, ``image`` and
    ``label`` (or ``labels``, ``tags``) are taken, and the labels must be names. ``images`` does nothing.

    Raises:
        StorageError: there is no such file or column.
    """
    files = [source]
    if not source.endswith(".parquet"):
        files = [join(source, name) for name in list_names(source, suffix=".parquet")]
    if not files:
        raise StorageError(f"'{source}' holds no .parquet file")
    with _opened(files[0]) as first:
        picture, label, names = _columns(first.schema_arrow, source)
    if not names:
        names = tuple(sorted({tag for file in files for _, tags in _rows(file, "", label, ()) for tag in tags}))

    def found() -> Iterator[Image]:
        number = 0
        for file in files:
            for value, tags in _rows(file, picture, label, names):
                yield _image(value, tags, number, folder=parent(file), out=out)
                number += 1

    return ImportedDataset(class_names=names, images=found())


@contextmanager
def _opened(location: str) -> Iterator[pq.ParquetFile]:
    opened, path = open_filesystem(location)
    with readable(location, "Parquet file"), pq.ParquetFile(opened.open_input_file(path)) as file:
        yield file


def _columns(schema: pa.Schema, source: str) -> tuple[str, str, tuple[str, ...]]:
    """The columns of picture and label, and the names of the labels where these are numbers."""
    inner = {name: _value_of(feature) for name, feature in _features(schema).items()}
    picture = [name for name, feature in inner.items() if feature.get("_type") == "Image"] or ["image"]
    label = [name for name, feature in inner.items() if feature.get("_type") == "ClassLabel"]
    label = label or [name for name in ("label", "labels", "tags") if name in schema.names] or ["label"]
    missing = [name for name in (picture[0], label[0]) if name not in schema.names]
    if missing:
        raise StorageError(f"'{source}' has no column '{missing[0]}' (it has: {', '.join(schema.names)})")
    return picture[0], label[0], tuple(inner.get(label[0], {}).get("names") or ())


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The features of the columns; none where the metadata are missing, empty or not as ``datasets`` writes them."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    for name in ("info", "features"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _value_of(feature: Any) -> dict[str, Any]:
    """The feature of a column's values: that of the elements for a list, which older versions wrote in brackets."""
    if isinstance(feature, list):
        feature = feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def _rows(file: str, picture: str, label: str, names: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    columns = [name for name in (picture, label) if name]
    with _opened(file) as opened:
        for batch in opened.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                value = row[label]
                labels = value if isinstance(value, list) else [value]
                tags = [_tag(one, names, file) for one in labels if one not in (None, -1)]
                yield row.get(picture), tuple(dict.fromkeys(tags))


def _tag(label: Any, names: tuple[str, ...], file: str) -> str:
    if not names or not isinstance(label, int):
        return str(label)
    if not 0 <= label < len(names):
        raise StorageError(f"'{file}' has the label {label}; labels are 0 to {len(names) - 1}, or -1 for none")
    return names[label]


def _image(value: Any, tags: tuple[str, ...], number: int, *, folder: str, out: str) -> Image:
    data = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    if data is None and path:
        return Image(image_id=path, location=path if is_uri(path) else join(folder, path), tags=tags)
    data = data or b""  # a row without a picture becomes an empty file, and so an error row that says so
    ending = next((name for start, name in _ENDINGS.items() if data.startswith(start)), ".img")
    name = f"{number:08d}-{hashlib.blake2b(data, digest_size=4).hexdigest()}{ending}"
    with about("out"):
        write_bytes(join(out, "images", name), data)
    return Image(image_id=name, location=join(out, "images", name), tags=tags)
