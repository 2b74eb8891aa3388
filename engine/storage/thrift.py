"""The little of Thrift's compact protocol that a page of a Parquet file needs.

Source: thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)


def read_struct(data: bytes, position: int = 0) -> tuple[dict[int, Any], int]:
    """A struct's values by the numbers of their fields, and where the struct ends.

    Raises:
        IndexError: the data end before it.
        ValueError: it holds what no page's header holds.
    """
    values: dict[int, Any] = {}
    field = 0
    while head := data[position]:
        position += 1
        kind = head & 15
        if head >> 4:
            field += head >> 4
        else:
            field, position = _integer(data, position)
        values[field], position = _value(data, position, kind)
    return values, position + 1


def _value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, position
    if kind == _BYTE:
        return data[position], position + 1
    if kind in _INTEGERS:
        return _integer(data, position)
    if kind == _DOUBLE:
        return None, position + 8
    if kind == _BINARY:
        size, position = _unsigned(data, position)
        return data[position : position + size], position + size
    if kind in (_LIST, _SET):
        size, element = data[position] >> 4, data[position] & 15
        position += 1
        if size == 15:
            size, position = _unsigned(data, position)
        items = []
        for _ in range(size):
            item, position = _value(data, position, element)
            items.append(item)
        return items, position
    if kind == _STRUCT:
        return read_struct(data, position)
    raise ValueError(f"a field of the unknown kind {kind}")


def _unsigned(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7


def _integer(data: bytes, position: int) -> tuple[int, int]:
    number, position = _unsigned(data, position)
    return (number >> 1) ^ -(number & 1), position


def struct(fields: Mapping[int, Any]) -> bytes:
    """A struct of integers (of 64 bits), :class:`Int32`, bytes, lists of one kind, and structs in form of mappings."""
    out = bytearray()
    last = 0
    for field, value in sorted(fields.items()):
        kind, encoded = _encoded(value)
        assert 0 < field - last < 16, fields
        out += bytes([(field - last) << 4 | kind]) + encoded
        last = field
    return bytes(out) + b"\0"


class Int32(int):
    """An integer that its field declares with 32 bits, enumerations included."""


def _encoded(value: Any) -> tuple[int, bytes]:
    if isinstance(value, int):
        return 5 if isinstance(value, Int32) else 6, _varint(value << 1 ^ value >> 63)
    if isinstance(value, bytes):
        return _BINARY, _varint(len(value)) + value
    if isinstance(value, Sequence):
        items = [_encoded(item) for item in value]
        head = bytes([min(len(items), 15) << 4 | items[0][0]]) + (_varint(len(items)) if len(items) >= 15 else b"")
        return _LIST, head + b"".join(encoded for _, encoded in items)
    return _STRUCT, struct(value)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
