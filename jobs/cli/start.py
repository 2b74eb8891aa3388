"""What a command does before the imports of its job, which take seconds: await signals, check the options, say so."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.cli.supervisor import supervise


def start_of(package: str) -> None:
    """Start the command, if Python is just looking for the module of this package that ``-m`` names."""
    if sys.argv[:1] == ["-m"]:
        module = next((word for word in sys.orig_argv if word.startswith(f"{package}.")), "")
        if module:
            begin(module, sys.argv[1:])


def begin(module: str, arguments: Sequence[str]) -> None:
    """Start the command of a job's module.

    Raises:
        SystemExit: there is a mistake in the options, which has been said, or they asked for help.
    """
    supervise()
    from engine.progress import starting  # only now, as every import takes its time

    shown = None if {"-h", "--help"} & set(arguments) else starting(module.rpartition(".")[2])
    from jobs.cli import command
    from jobs.cli.outline import outlined

    with outlined(module) as options:
        status = command.exit_status(lambda: command.check(options, arguments))
    if status:
        sys.exit(status)
    if shown is not None:
        shown.announce()
