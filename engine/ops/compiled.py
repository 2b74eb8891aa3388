"""Decorators that compile loops with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at its first call; the machine code is cached on disk, or in memory if no folder is writable.

    Multiplications and additions may be fused; the arithmetic is otherwise unchanged. The GIL is released.
    """
    return _njit(function, fastmath={"contract"})


def compiled_as_written(function: Function) -> Function:
    """As :func:`compiled`, but every operation is rounded separately."""
    return _njit(function, fastmath=False)


def _njit(function: Function, **options: Any) -> Function:
    njit: Any = numba.njit
    try:
        machine_code: Function = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:  # numba found no writable folder for its cache
        machine_code = njit(nogil=True, error_model="numpy", **options)(function)
    return machine_code
