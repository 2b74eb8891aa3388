"""The jobs that users run: ``tag2mask NAME`` or ``python -m jobs.NAME``."""

import os
import sys

from tag2mask import check_packages

try:
    check_packages(os.getcwd())
except ImportError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

from jobs.cli.start import start_of  # after the check, because it imports the engine

start_of(__name__)
