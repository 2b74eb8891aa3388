"""``python -m jobs``: the same as the command ``tag2mask``."""

from __future__ import annotations

import sys

from jobs.cli.menu import main

if __name__ == "__main__":
    sys.exit(main())
