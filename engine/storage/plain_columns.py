"""Parquet files of others, read without running what they hold.

Ray registers a column type of pickled Python objects, and reading such a column would run them. Our files have no
column of an extension type, so none is read.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def check_plain(schema: pa.Schema, columns: Iterable[str]) -> None:
    """See that no column holds more than plain values.

    Args:
        schema: of the file.
        columns: names of those that will be read; one that does not exist passes.

    Raises:
        pa.ArrowInvalid: a column is of an extension type, or holds one.
    """
    for name in columns:
        for index in schema.get_all_field_indices(name):
            found = _extension(schema.field(index).type)
            if found:
                raise pa.ArrowInvalid(f"its column '{name}' holds objects of the type '{found}', not plain values")


def _extension(kind: pa.DataType) -> str:
    """Name of an extension type in a type; empty where there is none."""
    if isinstance(kind, pa.BaseExtensionType):
        return str(kind.extension_name)
    if pa.types.is_dictionary(kind):
        return _extension(kind.value_type)
    return next((name for index in range(kind.num_fields) if (name := _extension(kind.field(index).type))), "")
