"""``python -m PACKAGE NAME`` for a package of measurements: run one of its modules; without a name, list them."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from jobs.cli.command import exit_status


def names(package: str) -> dict[str, str]:
    """Every module of the package that has a ``main``, with the first line of its docstring."""
    found = {}
    folder = importlib.import_module(package).__path__[0]
    for path in sorted(Path(folder).glob("[!_]*.py")):
        module = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def run(package: str) -> int:
    """Hand the command line to the module that it names; returns the exit status."""
    name, known = sys.argv[1] if len(sys.argv) > 1 else "", names(package)
    if name not in known:
        lines = [f"  {one:12} {what}" for one, what in known.items()]
        print("\n".join([f"usage: python -m {package} NAME [--help]", "", *lines]), file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    del sys.argv[1]
    sys.argv[0] = f"python -m {package} {name}"
    return exit_status(importlib.import_module(f"{package}.{name}").main)
