"""The exceptions that callers may catch. Messages are single sentences that do not mention the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A user error; the message names the parameter or file and what is allowed."""

    def __init__(self, reason: str, *, thing: str = "") -> None:
        """Args:
        reason: What is wrong, as a predicate that follows ``thing``, or as a whole sentence.
        thing: Dotted name of the parameter or setting, such as ``data`` or ``walk.alpha``.
        """
        super().__init__(reason)
        self.reason = reason
        self.thing = thing

    def __str__(self) -> str:
        return f"{self.thing} {self.reason}" if self.thing else self.reason


@contextmanager
def about(thing: str) -> Iterator[None]:
    """Set ``thing`` of a UserError raised in the block, unless it is already set."""
    try:
        yield
    except UserError as error:
        error.thing = error.thing or thing
        raise


@contextmanager
def within(part: str) -> Iterator[None]:
    """Prefix ``thing`` of a UserError raised in the block with ``part``, if it starts with ``training.``."""
    try:
        yield
    except UserError as error:
        if error.thing.startswith("training."):
            error.thing = f"{part}.{error.thing}"
        raise


class ConfigError(UserError, ValueError):
    """A setting has an invalid value, or settings contradict each other."""


class ManifestError(UserError):
    """The manifest or the class file cannot be used."""


class OutsideError(ManifestError):
    """All images lie outside the manifest's folder, which was not allowed."""


class WeightsError(UserError):
    """A weights file does not exist, is damaged, or belongs to another network."""


class OutputError(UserError):
    """The output folder cannot be used or written."""


class OtherRunError(OutputError):
    """The output folder contains files of another run or of another program."""


class StorageError(UserError, OSError):
    """A file or folder cannot be read or written.

    All storage errors derive from it; they are created where a store responds or a file is parsed, and not re-wrapped.
    """


class MissingError(StorageError, FileNotFoundError):
    """The file or folder does not exist."""


class DeniedError(StorageError, PermissionError):
    """Access is denied."""


class NoFileError(StorageError, IsADirectoryError):
    """The location is a folder or a device, not a file."""


class LocationError(StorageError):
    """The location is not a path or URI that the engine supports."""


class StoreUnavailableError(OSError):
    """The store of a run does not respond within the time that a run waits, or rejects the credentials."""


class ImageError(Exception):
    """An image cannot be labeled; its row gets the error ``stage: reason``, and the run continues."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")


class StartError(Exception):
    """Ray did not start on this machine."""


class TooManyErrors(Exception):
    """More images ended in an error than the run allows; completed shards are kept."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without a period."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
