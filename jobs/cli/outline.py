"""Load a job's options class without the job's slow imports, so that ``--help`` need not wait for torch and Ray."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


def syntax(module: str) -> tuple[str, ast.Module]:
    """Return a module's file name and syntax tree without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin, ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


@contextmanager
def outlined(module: str) -> Iterator[type[Any]]:
    """Yield a job's options class without its methods, for parsing a command line; valid inside the block only.

    Only the class itself and the imports and constants that it names are executed.
    """
    origin, tree = syntax(module)
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    annotation = run.args.args[0].annotation
    assert isinstance(annotation, ast.Name)
    made, before = ModuleType(module), sys.modules.get(module)
    made.__file__ = origin
    sys.modules[module] = made  # get_type_hints looks names up there
    try:
        exec(compile(_needed(tree, annotation.id), origin, "exec"), made.__dict__)
        yield made.__dict__[annotation.id]
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


def _needed(tree: ast.Module, name: str) -> ast.Module:
    """Reduce a file to the statements that define ``name``, without methods."""
    names, kept = {name}, list[ast.stmt]()
    for node in reversed(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            node.names = [one for one in node.names if future or (one.asname or one.name) in names]
            if not node.names:
                continue
        elif isinstance(node, ast.ClassDef) and node.name in names:
            node.body = [one for one in node.body if not isinstance(one, ast.FunctionDef)]
            names |= _names_in(node)
        elif isinstance(node, ast.Assign) and names & _names_in(*node.targets):
            names |= _names_in(node.value)
        else:
            continue
        kept.insert(0, node)
    return ast.Module(body=kept, type_ignores=[])


def _names_in(*nodes: ast.AST) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}
