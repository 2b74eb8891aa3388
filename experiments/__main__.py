"""``python -m experiments NAME``: run one of the modules of this folder; without a name, list them."""

from __future__ import annotations

import sys

from benchmarks.menu import run

if __name__ == "__main__":
    sys.exit(run("experiments"))
