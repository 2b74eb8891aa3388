"""Loops compiled by numba, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile at the first call and keep the machine code on disk, or in memory where no folder can be written.

    Products and sums may be fused; nothing else of the arithmetic is altered. The GIL is released.
    """
    return _njit(function, fastmath={"contract"})


def compiled_as_written(function: Function) -> Function:
    """:func:`compiled`, but every operation is rounded by itself."""
    return _njit(function, fastmath=False)


def _njit(function: Function, **options: Any) -> Function:
    njit: Any = numba.njit
    try:
        machine_code: Function = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        machine_code = njit(nogil=True, error_model="numpy", **options)(function)
    return machine_code
