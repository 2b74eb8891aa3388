"""The command ``tag2mask``: list the jobs, or run one by name."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import engine
import jobs
from jobs.cli.outline import outlined, syntax
from jobs.cli.start import begin

ORDER = (
    *("demo", "make-scenes", "import", "inspect", "run", "train-cam", "make-seeds", "train-affinity", "label"),
    *("train-segmentation", "segment", "evaluate", "report", "check-tags", "search", "export", "export-network"),
)
"""The jobs in order of use; others are listed last."""
SEARCH = {"search": "tune.search"}
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


def job_modules() -> dict[str, str]:
    """Map the name of each job to its module, in order of use."""
    files = Path(jobs.__path__[0]).glob("[!_]*.py")
    found = {file.stem.replace("_", "-"): f"jobs.{file.stem}" for file in files} | SEARCH
    return dict(sorted(found.items(), key=lambda job: (ORDER.index(job[0]) if job[0] in ORDER else len(ORDER), job[0])))


def what_it_does(module: str) -> str:
    """Return the first line of a module's docstring without importing the module."""
    text = ast.get_docstring(syntax(module)[1]) or ""
    return text.partition("\n")[0].partition(": ``")[0].rstrip(".")


def listing() -> str:
    """List all jobs, one per line."""
    lines = [f"  {name:20}{what_it_does(module)}" for name, module in job_modules().items()]
    return "\n".join(
        [
            "usage: tag2mask JOB [options]",
            "",
            *lines,
            "",
            "tag2mask JOB --help lists the options of a job; tag2mask --version prints the version.",
            f"Completion: tag2mask {COMPLETION[0]} bash (or zsh) prints a script for your shell.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the first argument names; returns the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    modules = job_modules()
    if name in ("-h", "--help"):
        return _show(listing())
    if name == "--version":
        return _show(f"tag2mask {engine.__version__}")
    if name in COMPLETION:
        import tyro

        tyro.extras.subcommand_cli_from_dict(_commands(modules), prog="tag2mask", args=[name, *rest])
    if name.replace("_", "-") not in modules:
        print(f"error: unknown job '{name}'; choose one of {', '.join(modules)}", file=sys.stderr)
        return 2
    module = modules[name.replace("_", "-")]
    if arguments is None:  # called as the program, not from a test
        begin(module, rest)
    from jobs.cli import command  # here because it is slow to import

    run = importlib.import_module(module).run
    return command.main(get_type_hints(run)["config"], run, rest)


def _show(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # closed early: tag2mask | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports it again at exit
    return 0


def _commands(modules: dict[str, str]) -> dict[str, Any]:
    """Build the options of all jobs, for shell completion."""
    from engine.presets import preset
    from jobs.cli.surface import Surface

    found = {}
    for name, module in modules.items():
        with outlined(module) as options:
            surface = Surface(options)
            found[name] = surface.command(preset("small") if surface.paths else None)
    return found
