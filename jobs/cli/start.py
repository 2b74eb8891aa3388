"""What a command does before it imports its job, which takes seconds: await signals, and say that it is starting."""

from __future__ import annotations

import sys

from engine.progress import starting
from jobs.cli.supervisor import supervise


def start_of(package: str) -> None:
    """Start the command, if Python is just looking for the module of this package that ``-m`` names."""
    if sys.argv[:1] == ["-m"]:
        module = next((word for word in sys.orig_argv if word.startswith(f"{package}.")), "")
        if module:
            begin(module.rpartition(".")[2])


def begin(name: str) -> None:
    """Start a command by the name of its job."""
    supervise()
    if not {"-h", "--help"} & set(sys.argv):
        starting(name)
