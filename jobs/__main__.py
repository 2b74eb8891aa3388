"""``python -m jobs``: list the jobs, or run the one that is named, as the command ``tag2mask`` does."""

from __future__ import annotations

import sys

from jobs.cli.menu import main

if __name__ == "__main__":
    sys.exit(main())
