"""What an error says, and what becomes of it on its way up."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from engine.errors import (
    ConfigError,
    DeniedError,
    LocationError,
    MissingError,
    NoFileError,
    StorageError,
    UserError,
    about,
    first_line,
)

ROOT = Path(__file__).parents[2]


def test_message_reads_on_from_the_parameter() -> None:
    assert str(ConfigError("must be above 0, got -1", thing="walk.alpha")) == "walk.alpha must be above 0, got -1"
    assert str(ConfigError("settings contradict each other")) == "settings contradict each other"


def test_error_is_about_the_innermost_parameter_that_was_named() -> None:
    with pytest.raises(StorageError, match=r"^source 'a' does not exist$"), about("out"), about("source"):
        raise MissingError("'a' does not exist")
    with pytest.raises(ConfigError, match=r"^format is unknown$"), about("out"):
        raise ConfigError("is unknown", thing="format")


def test_error_passes_up_as_the_same_object() -> None:
    made = MissingError("'a' does not exist")
    with pytest.raises(MissingError) as caught, about("data"):
        raise made
    assert caught.value is made
    assert made.__cause__ is None


def test_about_leaves_other_errors_alone() -> None:
    with pytest.raises(ZeroDivisionError), about("data"):
        _ = 1 / 0


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (MissingError, FileNotFoundError),
        (DeniedError, PermissionError),
        (NoFileError, IsADirectoryError),
        (LocationError, OSError),
    ],
)
def test_storage_error_is_caught_as_the_users_mistake_and_as_an_error_of_the_system(
    kind: type[StorageError], builtin: type[OSError]
) -> None:
    for caught in (builtin, OSError, StorageError, UserError):
        with pytest.raises(caught, match=r"^data 'a' is wrong$"):
            raise kind("'a' is wrong", thing="data")


@pytest.mark.parametrize("kind", [StorageError, MissingError, ConfigError])
def test_error_keeps_parameter_and_reason_between_processes(kind: type[UserError]) -> None:
    arrived = pickle.loads(pickle.dumps(kind("is wrong", thing="data")))
    assert (type(arrived), arrived.thing, arrived.reason, str(arrived)) == (kind, "data", "is wrong", "data is wrong")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one.\ntwo"), "one"),
        (ValueError("\n  two\nthree"), "two"),
        (ValueError(" "), "ValueError"),
        (ValueError(), "ValueError"),
    ],
)
def test_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize("path", sorted(ROOT.glob("engine/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_knows_no_command_line(path: Path) -> None:
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", path.read_text()))
    git_and_tar = {"--always", "--dirty", "--abbrev", "--exclude", "--sort"}
    variables_of_css = {"--ink", "--faint", "--line", "--accent"}
    assert flags <= git_and_tar | variables_of_css
