"""The exceptions that a caller may catch. Each message is one sentence for a person; it knows no command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """The user's mistake, in a sentence that names the parameter or file and what is allowed."""

    def __init__(self, reason: str, *, thing: str = "") -> None:
        """Args:
        reason: a predicate that reads on from ``thing``, or a whole sentence.
        thing: dotted name of the parameter or setting, such as ``data`` or ``walk.alpha``.
        """
        super().__init__(reason)
        self.reason = reason
        self.thing = thing

    def __str__(self) -> str:
        return f"{self.thing} {self.reason}" if self.thing else self.reason


@contextmanager
def about(thing: str) -> Iterator[None]:
    """Name the parameter that an error from the block is about, unless it names one already."""
    try:
        yield
    except UserError as error:
        error.thing = error.thing or thing
        raise


@contextmanager
def within(part: str) -> Iterator[None]:
    """Give the setting that an error from the block is about its full path, if it names one of this part's training."""
    try:
        yield
    except UserError as error:
        if error.thing.startswith("training."):
            error.thing = f"{part}.{error.thing}"
        raise


class ConfigError(UserError, ValueError):
    """A setting has a value that is not allowed, or settings contradict each other."""


class ManifestError(UserError):
    """The manifest or the file of classes cannot be used."""


class OutsideError(ManifestError):
    """No image lies inside the manifest's folder, and others were not allowed."""


class WeightsError(UserError):
    """A file of weights does not exist, is damaged, or belongs to another network."""


class OutputError(UserError):
    """The output folder holds something that this run must not touch."""


class OtherRunError(OutputError):
    """The output folder holds what another run, or somebody else, wrote."""


class StorageError(UserError, OSError):
    """A file or folder cannot be read or written. The one tree of storage errors: each is made where the store answers
    or a file is parsed, and passes up as it is."""


class MissingError(StorageError, FileNotFoundError):
    """It does not exist."""


class DeniedError(StorageError, PermissionError):
    """The store refuses access."""


class NoFileError(StorageError, IsADirectoryError):
    """It is a folder or a device, not a file."""


class LocationError(StorageError):
    """It names no place that the engine can open."""


class StoreUnavailableError(OSError):
    """A store that a run lives on does not answer for longer than a run waits, or refuses its credentials."""


class ImageError(Exception):
    """One image cannot be labeled; its row carries ``stage: reason`` and the run goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")


class StartError(Exception):
    """Ray did not start on this machine."""


class TooManyErrors(Exception):
    """More images ended in an error than the run allows; completed shards are kept."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
