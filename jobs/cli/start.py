"""Start a command before its job's slow imports: handle signals, check the options, announce the start."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.cli.supervisor import supervise


def start_of(package: str) -> None:
    """Start the command if the package is being imported for ``python -m PACKAGE.NAME``."""
    if sys.argv[:1] == ["-m"]:
        module = next((word for word in sys.orig_argv if word.startswith(f"{package}.")), "")
        if module:
            begin(module, sys.argv[1:])


def begin(module: str, arguments: Sequence[str]) -> None:
    """Start the command of a job's module.

    Raises:
        SystemExit: After ``--help``, or after printing an error in the options.
    """
    supervise()
    from engine.progress import starting  # after supervise(), which must come before slow imports

    shown = None if {"-h", "--help"} & set(arguments) else starting(module.rpartition(".")[2])
    from jobs.cli import command
    from jobs.cli.outline import outlined

    with outlined(module) as options:
        status = command.exit_status(lambda: command.check(options, arguments))
    if status:
        sys.exit(status)
    if shown is not None:
        shown.announce()
