"""The line that a command prints for an exception."""

from __future__ import annotations

import pytest

from engine.errors import (
    ConfigError,
    MissingError,
    OtherRunError,
    OutputError,
    OutsideError,
    StoreUnavailableError,
    TooManyErrors,
)
from jobs.cli.messages import message_of


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("must be above 0, got -1", thing="walk.alpha"), "--walk.alpha must be above 0, got -1"),
        (ConfigError("is 3", thing="crf.num_iterations"), "--crf.num-iterations is 3"),
        (ConfigError("missing --data; see --help"), "missing --data; see --help"),
        (MissingError("'my_data/x_1.csv' does not exist", thing="data"), "--data 'my_data/x_1.csv' does not exist"),
        (OutputError("'o' cannot be written", thing="out"), "--out 'o' cannot be written"),
        (StoreUnavailableError("'s3://b/x' failed: SLOW_DOWN"), "'s3://b/x' failed: SLOW_DOWN"),
        (TooManyErrors("3 of 4 images ended in an error"), "3 of 4 images ended in an error"),
    ],
)
def test_line_names_the_option_and_the_reason(error: Exception, line: str) -> None:
    assert message_of(error) == line


def test_output_of_another_run_comes_with_what_to_do() -> None:
    assert message_of(OtherRunError("'o' contains the output of another run (seed: 1 -> 2)", thing="out")) == (
        "--out 'o' contains the output of another run (seed: 1 -> 2); use another --out, or --overwrite to start afresh"
    )


def test_images_outside_come_with_the_option_that_allows_them() -> None:
    line = message_of(OutsideError("'m.csv' only has images outside its folder '/d'", thing="data"))
    assert line.startswith("--data 'm.csv' only has images outside")
    assert line.endswith("; use --allow-outside to read them anyway")


def test_advice_holds_for_a_more_special_error() -> None:
    class DamagedRunError(OtherRunError):
        pass

    assert message_of(DamagedRunError("is damaged", thing="out")).endswith("or --overwrite to start afresh")


@pytest.mark.parametrize("error", [OSError("a\n  b\n"), ConfigError("a\n  b\n")])
def test_message_of_several_lines_becomes_one(error: Exception) -> None:
    assert message_of(error) == "a b"


def test_error_without_words_is_called_by_its_name() -> None:
    assert message_of(ConnectionResetError()) == "ConnectionResetError"
