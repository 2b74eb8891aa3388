"""What tests of deaths share."""

from __future__ import annotations

import pytest

from engine.distributed import stream


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each death of a worker takes seconds."""
    monkeypatch.setattr(stream, "TRIES", 2)
