"""The command ``tag2mask``, also ``python -m tag2mask``."""

from __future__ import annotations

import sys

from tag2mask import check_packages


def main() -> int:
    """List the jobs, or run the one that is named; returns the exit status."""
    try:
        check_packages()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from jobs.cli.menu import main as menu

    return menu()


if __name__ == "__main__":
    sys.exit(main())
