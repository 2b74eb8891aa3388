"""``python -m benchmarks NAME``: run one benchmark; without a name, say which there are."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path


def names() -> dict[str, str]:
    """Every module of this folder that can be run, with the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        text = path.read_text()
        if '__name__ == "__main__"' in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def main() -> int:
    """Hand the command line on to the benchmark."""
    name, known = sys.argv[1] if len(sys.argv) > 1 else "", names()
    if name not in known:
        lines = [f"  {one:10} {what}" for one, what in known.items()]
        print("\n".join(["usage: python -m benchmarks NAME [--help]", "", *lines]), file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    del sys.argv[1]
    sys.argv[0] = f"benchmarks.{name}"
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
