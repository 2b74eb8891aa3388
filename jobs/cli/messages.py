"""Error messages of the command line."""

from __future__ import annotations

from engine.errors import OtherRunError, OutsideError, UserError

ADVICE: dict[type[UserError], str] = {
    OtherRunError: "use another --out, or --overwrite to start afresh",
    OutsideError: "use --allow-outside to read them anyway",
}
"""What to do about each kind of error; --overwrite deletes only files of an earlier run."""


def message_of(error: Exception) -> str:
    """Format an error as one line: the option, what is wrong, and what to do."""
    if not isinstance(error, UserError):
        return " ".join(str(error).split()) or type(error).__name__
    text = " ".join(error.reason.split())
    if error.thing:
        text = f"--{error.thing.replace('_', '-')} {text}"
    advice = next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), "")
    return f"{text}; {advice}" if advice else text
