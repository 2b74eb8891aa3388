"""Import Parquet files of Hugging Face ``datasets``, with an image and its labels in each row.

Source: the schema's ``huggingface`` metadata, which names the features: ``Image``, ``ClassLabel``, ``List``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigError, ManifestError, StorageError, UserError, about
from engine.imports.files import portable
from engine.imports.found import Image, ImportedDataset, ReaderOptions, united
from engine.imports.remarks import Remarks
from engine.storage.filesystem import join, name_of, open_filesystem, parent, resolve, write_bytes
from engine.storage.plain_columns import check_plain
from engine.storage.retries import readable
from engine.storage.sources.find import find_source, holds_bytes
from engine.storage.sources.tags import TagReader

_BATCH_ROWS = 64
_LABELS = ("label", "labels", "tags")
_SHOWN = 60
_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    picture: str
    embedded: bool
    """Whether it contains the images rather than their paths."""
    label: str
    names: tuple[str, ...]
    """Names of numeric labels."""


def read_parquet(source: str, options: ReaderOptions) -> ImportedDataset:
    """Read a file, a folder or a glob pattern; embedded images are extracted to ``options.out/images/*``.

    The image column is ``image``, else the only column of bytes; paths in it are relative to ``options.images``, else
    to the folder of the file. The label column is the only ``ClassLabel`` feature, else ``label``, ``labels`` or
    ``tags``, with names as in a manifest. ``options.image_column`` and ``label_column`` override this.

    Raises:
        StorageError: A file or column is missing or has an unsupported type, or the files belong to several splits.
        ConfigError: The columns are ambiguous.
    """
    files = _files(source)
    with _opened(files[0]) as first:
        columns = _columns(first.schema_arrow, source, options)
    names = columns.names or _names_that_occur(files, columns)

    def found() -> Iterator[Image]:
        number, reader = 0, TagReader()
        for file in files:
            for row, (value, tags) in enumerate(
                _rows(file, columns, [columns.picture, columns.label], reader), start=1
            ):
                image = _image(value, tags, number, folder=options.images or parent(file), out=options.out)
                if image is None:
                    remarks.add("rows without an image (skipped)", f"{name_of(file)}, row {row}")
                else:
                    yield image
                number += 1

    remarks = Remarks()
    images = found() if columns.embedded else united(found(), remarks)
    return ImportedDataset(class_names=names, images=images, remarks=remarks)


def _files(source: str) -> tuple[str, ...]:
    try:
        found = find_source(source)
    except ManifestError:
        found = None
    except UserError as error:
        error.thing = "source"  # instead of data
        raise
    if found is None or found.ending != ".parquet":
        raise StorageError(f"'{source}' is not a .parquet file and contains none; give a file, folder or glob pattern")
    splits = sorted({match.group(1) for file in found.files if (match := _SPLIT.fullmatch(name_of(file)))})
    if len(splits) > 1:
        raise StorageError(
            f"'{source}' contains the splits {', '.join(splits)}; give one of them, such as "
            f"'{join(found.folder, f'{splits[0]}-*.parquet')}'"
        )
    return found.files


@contextmanager
def _opened(location: str) -> Iterator[pq.ParquetFile]:
    opened, path = open_filesystem(location)
    with readable(location, "Parquet file"), pq.ParquetFile(opened.open_input_file(path)) as file:
        yield file


def _columns(schema: pa.Schema, source: str, options: ReaderOptions) -> _Columns:
    features = {name: _value_of(feature) for name, feature in _features(schema).items()}
    kinds = {name: feature.get("_type", "") for name, feature in features.items()}
    pictures = [
        field.name
        for field in schema
        if holds_bytes(field.type) and kinds.get(field.name, "") in ("Image", "Value", "")
    ]
    picture = options.image_column or ("image" if "image" in schema.names else _only(pictures, "image", source))
    classes = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    usual = [name for name in _LABELS if name in (classes or schema.names)]
    label = options.label_column or (usual[0] if usual else _only(classes, "label", source))
    for name in (picture, label):
        if name not in schema.names:
            raise StorageError(f"'{source}' has no column '{name}' (it has: {', '.join(schema.names)})")
    check_plain(schema, (picture, label))
    kind = schema.field(picture).type
    if not (holds_bytes(kind) or _is_text(kind)):
        raise ConfigError(
            f"must name a column of images or paths; '{picture}' of '{source}' is {_short(kind)}",
            thing="image_column",
        )
    if holds_bytes(schema.field(label).type):
        raise ConfigError(
            f"must name a column of tags; '{label}' of '{source}' contains images (masks are given as truth, not as "
            f"tags); the columns are: {', '.join(schema.names)}",
            thing="label_column",
        )
    return _Columns(
        picture=picture,
        embedded=holds_bytes(kind),
        label=label,
        names=tuple(features.get(label, {}).get("names") or ()),
    )


def _only(candidates: list[str], usual: str, source: str) -> str:
    """Return the only candidate; if there is none, the usual name, which is then reported as missing."""
    if len(candidates) > 1:
        raise ConfigError(
            f"must be one of {', '.join(candidates)}, because '{source}' has several and none is named '{usual}'",
            thing=f"{usual}_column",
        )
    return candidates[0] if candidates else usual


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Read the features of the columns; empty if the metadata is missing or not as ``datasets`` writes it."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    for name in ("info", "features"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _value_of(feature: Any) -> dict[str, Any]:
    """Return the feature of a column's values; for lists, which older versions wrote in brackets, of the elements."""
    if isinstance(feature, list):
        feature = feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def _rows(file: str, columns: _Columns, read: list[str], reader: TagReader) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Read the image (if its column is in ``read``) and the tags of each row."""
    number = 0
    with _opened(file) as opened:
        check_plain(opened.schema_arrow, read)
        names = _value_of(_features(opened.schema_arrow).get(columns.label)).get("names") or ()
        if tuple(names) != columns.names:
            raise StorageError(f"'{file}' has different class names in '{columns.label}' than the files before it")
        for batch in opened.iter_batches(batch_size=_BATCH_ROWS, columns=read):
            rows = batch.to_pylist()
            cells = [_cell(row[columns.label]) for row in rows]
            if columns.names:
                tags = [
                    _classes_of(cell, columns, f"'{file}', row {row}") for row, cell in enumerate(cells, number + 1)
                ]
            else:
                tags = reader.lists([_as_names(cell) for cell in cells], f"'{file}'", number).to_pylist()
            for row, own in zip(rows, tags, strict=True):
                yield row.get(columns.picture), tuple(own)
            number += len(rows)


def _cell(value: Any) -> Any:
    """Text as it is, else the list of what is there."""
    if isinstance(value, str):
        return value
    values = value if isinstance(value, list) else [value]
    # pandas converts integers with missing values to floats
    values = [int(one) if isinstance(one, float) and one.is_integer() else one for one in values]
    return [one for one in values if one not in (None, -1) and one == one]


def _as_names(cell: Any) -> Any:
    """A cell with the digits of numbers, for labels that nothing names."""
    return cell if isinstance(cell, str) else [str(one) if type(one) is int else one for one in cell]


def _classes_of(cell: Any, columns: _Columns, where: str) -> list[str]:
    labels = [cell] if isinstance(cell, str) else cell
    return list(dict.fromkeys(_class_of(label, columns, where) for label in labels))


def _class_of(label: Any, columns: _Columns, where: str) -> str:
    if isinstance(label, int) and 0 <= label < len(columns.names):
        return columns.names[label]
    if label in columns.names:
        return str(label)
    raise StorageError(f"{where} has the label {label!r}; labels are 0 to {len(columns.names) - 1}, or -1 for none")


def _names_that_occur(files: tuple[str, ...], columns: _Columns) -> tuple[str, ...]:
    names: set[str] = set()
    reader = TagReader()
    for file in files:
        for _, tags in _rows(file, columns, [columns.label], reader):
            names.update(tags)
    with _opened(files[0]) as first:
        several = pa.types.is_nested(first.schema_arrow.field(columns.label).type)
    if several and names and names <= {"0", "1"}:
        raise ConfigError(
            f"must name a column of names or of ClassLabel; '{columns.label}' of '{files[0]}' contains lists of 0 and "
            "1 without class names",
            thing="label_column",
        )
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def _image(value: Any, tags: tuple[str, ...], number: int, *, folder: str, out: str) -> Image | None:
    data = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    if data is None and path:
        path = portable(path, folder)
        return Image(image_id=path, location=resolve(path, folder), tags=tags)
    if not data:
        return None
    ending = next((name for start, name in _ENDINGS.items() if data.startswith(start)), ".img")
    name = f"{number:08d}-{hashlib.blake2b(data, digest_size=4).hexdigest()}{ending}"
    with about("out"):
        write_bytes(join(out, "images", name), data)
    return Image(image_id=name, location=join(out, "images", name), tags=tags)
