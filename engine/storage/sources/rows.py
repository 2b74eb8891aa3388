"""The rows that every source gives, checked and brought to one form, some thousand at a time and without a loop."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import ManifestError

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
_BETWEEN = "\0"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_NOT_TEXT = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError)


def checked_rows(columns: dict[str, Any], where: str, first_row: int) -> pa.Table:
    """Rows as a source holds them in the form of :data:`SCHEMA`.

    Args:
        columns: ``image`` and perhaps ``tags``, ``image_id`` and ``uri``, as lists or Arrow arrays of equal length.
        where: the file, for the error's sentence.
        first_row: rows of the file before these.

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
    tags = _tags(columns.get("tags", pa.nulls(len(image))), where, first_row)
    return pa.table([ids, image, uris, tags], schema=SCHEMA)


def _text(values: Any, column: str, where: str, first_row: int) -> pa.Array:
    """Text that is not blank, else the empty text; numbers as their digits."""
    kind = getattr(values, "type", None)
    if kind is not None and (pa.types.is_integer(kind) or pa.types.is_dictionary(kind) or _is_text(kind)):
        text = values.cast(pa.string())
    else:
        try:
            text = pa.array(values if kind is None else values.to_pylist(), pa.string())
        except _NOT_TEXT:
            text = pa.array(
                [_one_text(value, column, f"{where}, row {first_row + row + 1}") for row, value in enumerate(values)],
                pa.string(),
            )
    blank = pc.or_kleene(pc.is_null(text), pc.equal(pc.utf8_trim_whitespace(text), ""))
    return pc.if_else(blank, "", text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _one_text(value: object, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if not value.isascii() and _HALF_CHARACTER.search(value):
            raise ManifestError(f"{where} has {column} {value!r} with half a character; give Unicode text")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ManifestError(f"{where} has {column} {value!r}; give text")


def _tags(values: Any, where: str, first_row: int) -> pa.Array:
    """Lists of names; what is written alike is cleaned once, for the same tags come again and again."""
    kind = getattr(values, "type", None)
    if kind is not None and (pa.types.is_dictionary(kind) or pa.types.is_null(kind)):
        values = values.cast(pa.string())
        kind = pa.string()
    if kind is not None and _is_text(kind):
        return _each_once(values.cast(pa.string()), ";")
    lists: pa.Array | None = values if kind is not None else None
    if kind is None:
        try:
            if all(value is None or isinstance(value, str) for value in values):
                return _each_once(pa.array(values, pa.string()), ";")
            if all(isinstance(value, list) for value in values):
                lists = pa.array(values, pa.list_(pa.string()))
        except _NOT_TEXT:
            lists = None  # other things than text among them: one by one
    if lists is not None and pa.types.is_list(lists.type) and _is_text(lists.type.value_type):
        lists = lists.cast(pa.list_(pa.string()))
        joined = pc.binary_join(lists, _BETWEEN)
        if joined.null_count == lists.null_count and not _holds(lists.flatten(), _BETWEEN):
            return _each_once(joined, _BETWEEN)
    plain: Sequence[Any] = values if kind is None else values.to_pylist()
    return pa.array(
        [tag_names(value, f"{where}, row {first_row + row + 1}") for row, value in enumerate(plain)],
        pa.list_(pa.string()),
    )


def _holds(texts: pa.Array, part: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, part)).as_py())


def _each_once(text: pa.Array, between: str) -> pa.Array:
    encoded = pc.fill_null(text, "").dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    cleaned = [unique_names(one.split(between)) for one in encoded.dictionary.to_pylist()]
    return pa.array(cleaned, pa.list_(pa.string())).take(encoded.indices)


def tag_names(value: object, where: str) -> list[str]:
    """The names in a cell of tags: a list, or text with ``;`` between them.

    Args:
        where: the file and row, for the error's sentence.

    Raises:
        ManifestError: it is neither.
    """
    if value is None:
        return []
    names = value.split(";") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise ManifestError(f"{where} has tags {value!r}; give a list of names, or names separated by ';'")
    return unique_names(_one_text(name, "a tag", where) for name in names)


def unique_names(names: Iterable[str]) -> list[str]:
    """Names without the blanks around them, each once, in their order."""
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def check_columns(location: str, found: list[str], *, needs_tags: bool) -> None:
    """A manifest has ``image`` and, where they are needed, ``tags``, and no column that is read twice.

    Raises:
        ManifestError: otherwise.
    """
    missing = [name for name in ("image", "tags") if name not in found and (needs_tags or name == "image")]
    if missing:
        columns = " and ".join(f"'{name}'" for name in missing)
        needed = "image and tags, optionally" if needs_tags else "image, optionally tags and"
        raise ManifestError(
            f"'{location}' has no column {columns} (it has: {', '.join(found) or 'none'}); it needs {needed} image_id"
        )
    twice = [name for name in ("image", "tags", "image_id") if found.count(name) > 1]
    if twice:
        raise ManifestError(f"'{location}' has the column '{twice[0]}' twice")
