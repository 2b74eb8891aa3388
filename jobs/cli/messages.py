"""From an exception to the line that a command prints."""

from __future__ import annotations

from engine.errors import OtherRunError, OutsideError, UserError

ADVICE: dict[type[UserError], str] = {
    OtherRunError: "use another --out, or --overwrite to start afresh",
    OutsideError: "--allow-outside reads others too",
}
"""What to do, by kind of mistake; --overwrite deletes only what an earlier run wrote."""


def message_of(error: Exception) -> str:
    """One line that names the option, says what is wrong, and what to do."""
    if not isinstance(error, UserError):
        return " ".join(str(error).split()) or type(error).__name__
    text = " ".join(error.reason.split())
    if error.thing:
        text = f"--{error.thing.replace('_', '-')} {text}"
    advice = next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), "")
    return f"{text}; {advice}" if advice else text
