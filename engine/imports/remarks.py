"""What an import does not take as it is: counted by kind, so that nothing is left out in silence."""

from __future__ import annotations


class Remarks:
    """How many things of a kind there were, and the first of them as an example."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one thing.

        Args:
            kind: what such things are, in the plural, and what became of them.
            example: its name.
        """
        number, first = self._found.get(kind, (0, example))
        self._found[kind] = number + 1, first

    @property
    def counts(self) -> dict[str, int]:
        """Things by kind."""
        return {kind: number for kind, (number, _) in self._found.items()}

    @property
    def lines(self) -> list[str]:
        """A line for each kind."""
        return [f"{kind}: {number}, such as '{first}'" for kind, (number, first) in self._found.items()]
