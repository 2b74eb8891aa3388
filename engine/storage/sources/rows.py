"""The rows that every source gives, checked and brought to one form, some thousand at a time and without a loop."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import ManifestError
from engine.storage.sources.tags import TagReader, is_text, shown

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # unique over the source
        ("image", pa.string()),  # as the user names it; empty where there is none
        ("uri", pa.string()),  # where it is read from; null: at ``image``, seen from the source's folder
        ("tags", pa.list_(pa.string())),  # each once
    ]
)
BATCH_ROWS = 65536
_PASSWORD = r"^[A-Za-z][A-Za-z0-9+.\-]*://[^/@]*:[^/@]*@"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_NOT_TEXT = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError)


def checked_rows(columns: dict[str, Any], where: str, first_row: int, reader: TagReader) -> pa.Table:
    """Rows as a source holds them in the form of :data:`SCHEMA`.

    Args:
        columns: ``image`` and perhaps ``tags``, ``image_id`` and ``uri``, as lists or Arrow arrays of equal length.
        where: the file, for the error's sentence.
        first_row: rows of the file before these.
        reader: of the tags of the whole source.

    Raises:
        ManifestError: a value is of another kind, or a row names no image.
    """
    image = _text(columns["image"], "image", where, first_row)
    image_id = columns.get("image_id")
    if image_id is None:
        ids = image
    else:
        named = _text(image_id, "image_id", where, first_row)
        ids = pc.if_else(pc.equal(named, ""), image, named)
    nameless = pc.index(pc.equal(ids, ""), True).as_py()
    if nameless >= 0:
        raise ManifestError(
            f"{where}, row {first_row + nameless + 1} has neither an image nor an image_id; every row names an image"
        )
    for column, values in (("image", image), ("image_id", ids)):
        secret = pc.index(pc.match_substring_regex(values, _PASSWORD), True).as_py()
        if secret >= 0:  # it would stand in every output
            raise ManifestError(
                f"{where}, row {first_row + secret + 1} has a password in its {column}; remove it from the URI, "
                "as credentials come from the AWS variables"
            )
    uri = columns.get("uri")
    uris = pa.nulls(len(image), pa.string()) if uri is None else pa.array(uri, pa.string())
    tags = reader.lists(columns.get("tags", pa.nulls(len(image))), where, first_row)
    return pa.table([ids, image, uris, tags], schema=SCHEMA)


def _text(values: Any, column: str, where: str, first_row: int) -> pa.Array:
    """Text that is not blank, else the empty text; numbers as their digits."""
    kind = getattr(values, "type", None)
    if kind is not None and (pa.types.is_integer(kind) or pa.types.is_dictionary(kind) or is_text(kind)):
        text = values.cast(pa.string())
    else:
        try:
            text = pa.array(values if kind is None else values.to_pylist(), pa.string())
        except _NOT_TEXT:
            plain = values if kind is None else values.to_pylist()
            text = pa.array(
                [_one_text(value, column, f"{where}, row {first_row + row + 1}") for row, value in enumerate(plain)],
                pa.string(),
            )
    blank = pc.or_kleene(pc.is_null(text), pc.equal(pc.utf8_trim_whitespace(text), ""))
    return pc.if_else(blank, "", text)


def _one_text(value: object, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if not value.isascii() and _HALF_CHARACTER.search(value):
            raise ManifestError(f"{where} has {column} {value!r} with half a character; give Unicode text")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        hint = "in pandas, .astype('Int64') or .astype(str)"
        raise ManifestError(f"{where} has {column} {value!r}; give text or whole numbers ({hint})")
    raise ManifestError(f"{where} has {column} {shown(value)}; give text")


def json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: The object.
        where: Its place, for the error message.

    Raises:
        ManifestError: It is not JSON, or not an object.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise ManifestError(f"{where} is not JSON: nested too deep") from error
    if not isinstance(values, dict):
        raise ManifestError(f"{where} is not a JSON object in braces")
    return values
