"""Checks of settings and options. A leaf."""

from __future__ import annotations

from engine.errors import ConfigError


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value that is not allowed.

    Raises:
        ConfigError: ``condition`` does not hold.
    """
    if not condition:
        raise ConfigError(f"must be {allowed}, got {value!r}", thing=name)


def require_at_least(least: float, **values: float) -> None:
    """Refuse values below ``least``, by name; errors as :func:`require`."""
    for name, value in values.items():
        require(value >= least, name, value, f"{least} or more")


def require_fractions(**values: float) -> None:
    """Refuse values outside [0, 1], by name; errors as :func:`require`."""
    for name, value in values.items():
        require(0 <= value <= 1, name, value, "from 0 to 1")
