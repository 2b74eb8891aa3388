"""Loops compiled by numba and their cache on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("numba")

from engine.ops import lattice_kernels, mean_field_kernels, walk_kernels

ROOT = Path(__file__).parents[3]


def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "a file, so no folder can be made in it"
    blocked.touch()
    code = (
        "import numba.core.caching as caching\n"
        "for name in dir(caching):\n"
        "    if name.endswith('CacheLocator'):\n"
        "        getattr(caching, name).ensure_cache_path = refuse\n"
        "from engine.ops import mean_field_kernels\n"
        "print(mean_field_kernels._exp(mean_field_kernels._ZERO))\n"
    )
    refuse = "def refuse(self):\n    raise OSError('read-only')\n"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(blocked)}
    command = [sys.executable, "-c", refuse + code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1.0"


@pytest.mark.parametrize("module", [lattice_kernels, mean_field_kernels, walk_kernels])
def test_compiled_functions_call_none_of_another_file(module: ModuleType) -> None:
    # numba's cache on disk would keep the old machine code of a callee whose file changed.
    functions = [value for value in vars(module).values() if hasattr(value, "py_func")]
    assert functions
    assert {function.py_func.__module__ for function in functions} == {module.__name__}
