"""The exceptions that a caller may catch; the message of each is one sentence for a person."""


class UserError(Exception):
    """The user's mistake, in a sentence that names the parameter or file and what is allowed."""

    def __init__(self, reason: str, *, thing: str = "") -> None:
        """Args:
        reason: a predicate that reads on from ``thing``, or a whole sentence.
        thing: dotted name of the parameter or setting, such as ``data`` or ``walk.alpha``.
        """
        super().__init__(f"{thing} {reason}" if thing else reason)
        self.thing, self.reason = thing, reason


class ConfigError(UserError, ValueError):
    """A setting has a value that is not allowed, or settings contradict each other."""


class ManifestError(UserError):
    """The manifest or the file of classes cannot be used."""


class StorageError(UserError):
    """A file or folder that the user named cannot be read or written."""


class StoreUnavailableError(OSError):
    """A store that a run lives on does not answer for longer than a run waits, or refuses its credentials."""


class WeightsError(UserError):
    """A file of weights does not exist, is damaged, or belongs to another network."""


class OutputError(UserError):
    """The output folder holds something that this run must not touch."""


class OtherRunError(OutputError):
    """The output folder holds what another run, or somebody else, wrote; ``--overwrite`` is what takes it."""


class ImageError(Exception):
    """One image cannot be labeled; its row carries ``stage: reason`` and the run goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")


class TooManyErrors(Exception):
    """More images ended in an error than the run allows; what was written stays; exit status 1."""


def first_line(error: BaseException) -> str:
    """What an exception says, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
