"""Count what an import skips or changes, so that nothing is dropped silently."""

from __future__ import annotations


class Remarks:
    """Counts remarks by kind, and keeps the first of each kind as an example."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one remark.

        Args:
            kind: What was found, in the plural, and how it was handled.
            example: The name of the file, row or class.
        """
        number, first = self._found.get(kind, (0, example))
        self._found[kind] = number + 1, first

    @property
    def counts(self) -> dict[str, int]:
        """Number of remarks by kind."""
        return {kind: number for kind, (number, _) in self._found.items()}

    @property
    def lines(self) -> list[str]:
        """One line for each kind."""
        return [f"{kind}: {number}, such as '{first}'" for kind, (number, first) in self._found.items()]
