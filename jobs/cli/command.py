"""From a command line to a job, and from what happens to an exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_type_hints

import tyro

from engine.config import Settings
from engine.errors import ConfigError, TooManyErrors, UserError
from engine.plain_settings import merged
from engine.presets import preset
from engine.storage.run_record import read_json

Config = TypeVar("Config")

DONE, FAILED, USER_MISTAKE = 0, 1, 2
OWN_OPTIONS = ("rounds", "last_num_epochs", "segmentation_from_cam", "val_fraction", "min_confidence")
"""What decides a run of jobs.run beside the settings; its ``run.json`` gives them again."""
_COLUMNS = 79


def main(
    config_class: type[Config], run: Callable[[Config], dict[str, Any]], arguments: Sequence[str] | None = None
) -> int:
    """Run a job from the command line.

    Args:
        config_class: the job's options, a frozen dataclass; fields named like a part of the settings start from the
            preset.
        run: the job.
        arguments: the command line; the process's own by default.

    Returns:
        The exit status: 0 done, 1 failed, 2 the user's mistake.
    """
    try:
        run(parse(config_class, sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except TooManyErrors as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        if isinstance(error, BrokenPipeError) or type(error).__module__.partition(".")[0] == "ray":
            raise  # whoever reads has left; a fault of Ray's, whose traceback says more than its name
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted: what was written stays; the same command goes on from there", file=sys.stderr)
        return FAILED
    return DONE


def parse(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """The job's options from a command line: preset, then ``--config``, then single settings.

    Raises:
        ConfigError: an option does not exist, is missing, or has a value that is not allowed.
        SystemExit: status 0, after ``--help``, also where its reader left before the end (``--help | head``).
    """
    defaults = _defaults(config_class, arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                config_class,
                default=defaults,
                args=list(arguments),
                prog=_program(config_class),
                description=_description(config_class),
            )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again as it ends
        raise SystemExit(DONE) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(one_line(complaint.getvalue())) from None


def _program(config_class: type[Any]) -> str:
    """What was typed: ``python -m jobs.NAME``; the job's file is ``__main__`` then."""
    module = sys.modules[config_class.__module__]
    return f"python -m {module.__spec__.name if module.__spec__ else module.__name__}"


def _description(config_class: type[Any]) -> str:
    """What the job does and cannot do without, for a terminal of 80 columns.

    tyro prints it as one line but for breaks before a line that starts with a space.
    """
    paragraphs = inspect.cleandoc(config_class.__doc__ or "").split("\n\n")
    needed = [
        f"--{item.name.replace('_', '-')}"
        for item in dataclasses.fields(config_class)
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and not dataclasses.is_dataclass(get_type_hints(config_class)[item.name])
    ]
    if needed:
        paragraphs.append(f"Needed: {', '.join(needed)}.")
    return "\n\n".join(textwrap.fill(part, _COLUMNS, subsequent_indent=" ") for part in paragraphs)


def _defaults(config_class: type[Config], arguments: Sequence[str]) -> Config:
    fields = dataclasses.fields(config_class)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for item in fields:
        if item.default is not dataclasses.MISSING:
            values[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            values[item.name] = item.default_factory()
        else:
            values[item.name] = tyro.MISSING
    if "preset" in values:
        settings, own = _settings(values["preset"], arguments)
        if values.keys() >= set(OWN_OPTIONS):
            values |= own
        hints = get_type_hints(config_class)
        values |= _parts(settings, [name for name in values if dataclasses.is_dataclass(hints[name])])
    return config_class(**values)


def _settings(default_preset: str, arguments: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
    """The settings of preset and ``--config``, and the :data:`OWN_OPTIONS` that the latter holds."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--preset", default=default_preset)
    early.add_argument("--config", default="")
    try:
        known, _ = early.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    settings = preset(known.preset)
    if not known.config:
        return settings, {}
    record = read_json(known.config)
    if record is None:
        raise ConfigError(f"--config: '{known.config}' does not exist; allowed: a run.json or best.json")
    changes = record.get("settings")
    if not isinstance(changes, dict):
        raise ConfigError(f"--config: '{known.config}' has no settings; allowed: a run.json or best.json")
    if "job" in record:  # beside its settings a job of ours keeps there what only its own options know
        names = {item.name for item in dataclasses.fields(Settings)}
        changes = {name: values for name, values in changes.items() if name in names}
    options = record.get("options") if record.get("job") == "run" else None
    own = {name: options[name] for name in OWN_OPTIONS if name in options} if isinstance(options, dict) else {}
    for name, value in own.items():
        if not isinstance(value, bool if name == "segmentation_from_cam" else int | float):
            raise ConfigError(f"--config {known.config}: options.{name} is {value!r}; allowed: what jobs.run wrote")
    return merged(settings, changes, where=f"--config {known.config}"), own


def _parts(settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """The parts of the settings that the options have fields for; ``cam_inference`` is ``settings.cam.inference``."""
    parts: dict[str, Any] = {}
    for name in names:
        part, _, inner = name.partition("_")
        if hasattr(settings, name):
            parts[name] = getattr(settings, name)
        elif inner in ("network", "inference") and hasattr(settings, part):
            parts[name] = getattr(settings, part) if inner == "network" else getattr(settings, part).inference
    return parts


def one_line(complaint: str) -> str:
    """tyro's box as one sentence."""
    lines = [line.strip("│╭╰─╮╯ ") for line in complaint.splitlines()]
    lines = [line for line in lines if line and "full helptext" not in line and not line.endswith(("error", "options"))]
    text = re.split(r"Perhaps you meant|Arguments similar to|Available subcommands|Did you mean", " ".join(lines))[0]
    text = re.sub(r"Error parsing \w+: (?=--)", "", text)
    text = re.sub(r"Error parsing (?:--)?([\w.-]+): (\w+) is ", lambda m: _option(m[1], m[2]) + " is ", text)
    text = text.replace("(required)", "").replace("Missing from", "missing for")
    return re.sub(r"\s+", " ", text).strip() + "; see --help"


def _option(part: str, name: str) -> str:
    return f"--{part}.{name}".replace("_", "-").replace("-network.", ".").replace("-inference.", ".inference.")
