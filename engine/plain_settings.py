"""Convert settings to and from plain values for JSON, access parts by dotted path, and compare settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from engine.errors import ConfigError

Part = TypeVar("Part")

_NUM_SHOWN = 8


def to_dict(config: object) -> dict[str, Any]:
    """Convert a dataclass to nested plain values, ready for JSON."""
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    return dataclasses.asdict(config)


def part_at(config: object, path: str) -> Any:
    """Get the part of a settings tree at a dotted path such as ``cam.inference``."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def with_part(config: Part, path: str, part: object) -> Part:
    """Replace the part of a settings tree at a dotted path."""
    name, _, rest = path.partition(".")
    value = with_part(getattr(config, name), rest, part) if rest else part
    return cast(Part, replace(cast(Any, config), **{name: value}))


def parts_to_dict(config: object, paths: Sequence[str]) -> dict[str, Any]:
    """Convert the parts at the given dotted paths to nested plain values, as :func:`to_dict` does."""
    whole = to_dict(config)
    chosen: dict[str, Any] = {}
    for path in paths:
        *parents, name = path.split(".")
        source, target = whole, chosen
        for one in parents:
            source, target = source[one], target.setdefault(one, {})
        target[name] = source[name]
    return chosen


def rest_to_dict(config: object, paths: Sequence[str]) -> dict[str, Any]:
    """Convert everything except the parts at the given paths, the complement of :func:`parts_to_dict`."""
    rest = to_dict(config)
    for path in paths:
        *parents, name = path.split(".")
        part = rest
        for one in parents:
            part = part[one]
        del part[name]
    return rest


def merged(config: Part, changes: dict[str, Any], *, where: str, prefix: str = "") -> Part:
    """Override settings with nested values from a JSON file.

    Args:
        config: A dataclass of :mod:`engine.config`.
        changes: Nested names and values; other settings keep their values.
        where: The source of the changes, which errors name in parentheses.

    Raises:
        ConfigError: A name is unknown or a value is not allowed.
    """
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    hints = get_type_hints(type(config))
    updates: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            known = ", ".join(hints)
            raise ConfigError(f"is not a setting ({where}); must be one of {known}", thing=f"{prefix}{name}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            updates[name] = merged(current, value, where=where, prefix=f"{prefix}{name}.")
            continue
        try:
            updates[name] = _as_type(value, hints[name])
        except TypeError as error:
            raise ConfigError(f"must be {error}, got {value!r} ({where})", thing=f"{prefix}{name}") from error
    try:
        return cast(Part, replace(config, **updates))
    except ConfigError as error:
        raise ConfigError(f"{error.reason} ({where})", thing=f"{prefix}{error.thing}") from error


def _as_type(value: Any, hint: Any) -> Any:
    """Convert a JSON value to the type of a setting; raises TypeError with what is allowed."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint) or isinstance(value, bool):
            raise TypeError(f"one of {', '.join(str(choice) for choice in get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, list | tuple):
            raise TypeError("a list")
        if kinds[-1] is Ellipsis:
            return tuple(_as_type(one, kinds[0]) for one in value)
        if len(value) != len(kinds):
            raise TypeError(f"a list of {len(kinds)}")
        return tuple(_as_type(one, kind) for one, kind in zip(value, kinds, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError({int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "text"))
    return value


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List the differences between two nested settings, as ``name: old -> new``.

    A setting that is absent from ``old`` and off in ``new`` (0, false, "") is no difference, so that a new version can
    resume the runs of an older one.
    """
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after and (name in old or after):
            lines.append(f"{prefix}{name}: {before} -> {after}")
    return lines


def shortened(lines: Sequence[str]) -> str:
    """Join :func:`differences` to one line, truncating long lists."""
    more = [f"and {len(lines) - _NUM_SHOWN} more"] if len(lines) > _NUM_SHOWN else []
    return "; ".join([*lines[:_NUM_SHOWN], *more])
