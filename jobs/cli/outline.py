"""A job's options without what only its run needs: importing torch and Ray takes seconds, which --help should not."""

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
    """Where the file of a module lies, and what it holds, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin, ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


@contextmanager
def outlined(module: str) -> Iterator[type[Any]]:
    """The class of a job's options while the block runs, for its command line alone: it has no methods.

    Of the job's file only that class is executed, and the imports and constants that it names.
    """
    origin, tree = syntax(module)
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    annotation = run.args.args[0].annotation
    assert isinstance(annotation, ast.Name)
    made, before = ModuleType(module), sys.modules.get(module)
    made.__file__ = origin
    sys.modules[module] = made  # where the hints of the class are looked up
    try:
        exec(compile(_needed(tree, annotation.id), origin, "exec"), made.__dict__)
        yield made.__dict__[annotation.id]
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


def _needed(tree: ast.Module, name: str) -> ast.Module:
    """The statements of a file that define ``name``, without the methods of classes."""
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
