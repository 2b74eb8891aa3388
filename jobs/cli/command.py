"""Parse a job's options, run it, and turn errors into messages and exit statuses."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import tyro
from tyro._calling import InstantiationError

from engine.config import Settings
from engine.errors import ConfigError, StartError, TooManyErrors, UserError
from engine.plain_settings import differences, merged, parts_to_dict, shortened
from engine.presets import preset
from engine.progress import job, started
from engine.storage.recorded_settings import recorded_settings
from engine.storage.run_record import RECORD_NAME, read_json, read_record
from jobs.cli.closing import print_closing
from jobs.cli.messages import message_of
from jobs.cli.surface import Surface, name_of

Options = TypeVar("Options")

DONE, FAILED, USER_MISTAKE = 0, 1, 2

_RECORDS = ("best.json", RECORD_NAME, "calibration.json")
"""Files that ``--config FOLDER`` looks for, in this order; a search writes both ``best.json`` and the record."""


def main(
    options_class: type[Options], run: Callable[[Options], dict[str, Any]], arguments: Sequence[str] | None = None
) -> int:
    """Run a job from the command line.

    Args:
        options_class: The job's options, a frozen dataclass.
        run: The job.
        arguments: The command line; ``sys.argv[1:]`` by default.

    Returns:
        The exit status: 0 done, 1 failed, 2 user error, 130 interrupted.
    """

    name = name_of(options_class)

    def work() -> None:
        started()
        options = parse(options_class, sys.argv[1:] if arguments is None else arguments)
        start = time.monotonic()
        with job(name):
            summary = run(options)
        print_closing(name, options, summary, time.monotonic() - start)

    try:
        return exit_status(work)
    except KeyboardInterrupt:  # only without a supervisor
        print("interrupted: completed work is kept; rerun the command to resume", file=sys.stderr)
        return 128 + signal.SIGINT


def exit_status(work: Callable[[], int | None]) -> int:
    """Call ``work`` and return its exit status; an expected error is printed in one line and returned as a status."""
    try:
        return work() or DONE
    except UserError as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        return USER_MISTAKE
    except (StartError, TooManyErrors) as error:
        print(f"failed: {message_of(error)}", file=sys.stderr)
        return FAILED
    except OSError as error:
        if isinstance(error, BrokenPipeError) or type(error).__module__.partition(".")[0] == "ray":
            raise  # a closed pipe, or an error inside Ray, where the traceback is more useful than the message
        print(f"error: {message_of(error)}", file=sys.stderr)
        return USER_MISTAKE


def parse(options_class: type[Options], arguments: Sequence[str]) -> Options:
    """Parse a job's command line: preset or recorded settings, overridden by ``--config``, then by single options.

    If the job is given networks or shards, a line on standard error lists the settings that differ from theirs.

    Raises:
        ConfigError: An option is unknown, missing, or has an invalid value.
        SystemExit: With status 0, after ``--help``, even if its output pipe was closed early (``--help | head``).
    """
    surface = Surface(options_class)
    sources, recorded, settings = _start(surface, arguments)
    options = surface.options(_values(surface, settings, arguments), settings)
    if recorded is not None:
        print(_origin(recorded, cast(Any, options).settings, sources, surface.paths), file=sys.stderr)
    return options


def check(options_class: type[Any], arguments: Sequence[str]) -> None:
    """Check the arguments like :func:`parse`, without creating the options; an outlined class is enough."""
    surface = Surface(options_class)
    _values(surface, _start(surface, arguments)[2], arguments)


def _start(surface: Surface[Any], arguments: Sequence[str]) -> tuple[Sequence[str], Settings | None, Settings | None]:
    """Return the locations of earlier outputs, the settings recorded there, and the settings to start from."""
    if not surface.paths:
        return (), None, None
    start = _parsed(surface, surface.start(), arguments, add_help=False, return_unknown_args=True)[0]
    sources = {name: (place, paths) for name, paths in surface.sources.items() if (place := getattr(start, name))}
    recorded = recorded_settings(sources)
    settings = preset(start.preset) if start.preset != "auto" else recorded or preset("small")
    return [place for place, _ in sources.values()], recorded, _configured(settings, start.config)


def _values(surface: Surface[Any], settings: Settings | None, arguments: Sequence[str]) -> dict[str, Any]:
    named = {"prog": surface.program, "description": surface.description}
    values: dict[str, Any] = vars(_parsed(surface, surface.command(settings), arguments, **named))
    return values


def _origin(recorded: Settings, chosen: Settings, places: Sequence[str], paths: Sequence[str]) -> str:
    """Describe where a job's settings come from and how they differ from the recorded ones."""
    used = [path for path in paths if path != "resources"]
    lines = differences(parts_to_dict(recorded, used), parts_to_dict(chosen, used))
    return f"settings: from {' and '.join(places)}" + (f", except {shortened(lines)}" if lines else "")


def _parsed(surface: Surface[Any], command: type[Any], arguments: Sequence[str], **more: Any) -> Any:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, args=list(arguments), **more)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports it again at exit
        raise SystemExit(DONE) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        failed = stop.__context__
        if isinstance(failed, InstantiationError) and isinstance(failed.__context__, ConfigError):
            mistake = failed.__context__
            raise ConfigError(mistake.reason, thing=f"{surface.setting(str(failed.arg))}.{mistake.thing}") from None
        raise ConfigError(one_line(complaint.getvalue())) from None


def _configured(settings: Settings, config: str) -> Settings:
    """Override the settings with those of a file, if one is given."""
    if not config:
        return settings
    record = read_json(config) if config.endswith(".json") else _record_in(config)
    changes = None if record is None else record.get("settings")
    if not isinstance(changes, dict):
        found = "does not exist" if record is None else "has no settings"
        allowed = ", ".join(_RECORDS)
        raise ConfigError(f"'{config}' {found}; give one of {allowed}, or a folder with one", thing="config")
    return merged(settings, changes, where=f"--config {config}")


def _record_in(folder: str) -> dict[str, Any] | None:
    found = (read_record(folder, name) for name in _RECORDS)
    return next((record for record in found if record is not None), None)


def one_line(complaint: str) -> str:
    """Condense tyro's boxed error message to one line."""
    lines = [re.sub(r"-{9,}", "", line).strip("│╭╰─╮╯ ") for line in complaint.splitlines()]
    lines = [line for line in lines if line and not line.endswith(("error", "options"))]
    text, _, rest = " ".join(lines).partition("Perhaps you meant")
    options = re.findall(r"(?<!\S)--[\w.-]+(?= |,|$)", " ".join(line for line in lines if line.startswith("--")))
    unknown = re.search(r"Unrecognized options: (--[\w.-]+)", text)
    if text.startswith("Missing from") and unknown:
        return f"unrecognized option {unknown[1]}{f'; did you mean {options[-1]}?' if rest else '; see --help'}"
    if text.startswith("Missing from"):
        return f"missing {', '.join(option for option in options if option != '--help')}; see --help"
    guess = f"; did you mean {options[0]}?" if rest and options else "; see --help"
    text = re.split(r"Argument helptext|For full helptext|Available subcommands", text)[0]
    text = re.sub(r"Error parsing (?=--)|Invalid choice (?=invalid)|Missing argument (?=Missing)", "", text)
    return re.sub(r"\s+", " ", text).strip(" .") + guess
