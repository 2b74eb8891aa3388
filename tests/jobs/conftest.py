"""What the tests of the jobs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def quick_reports() -> Iterator[None]:
    """Ray Train looks more often whether a worker has reported: seconds a training, which is all that these last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield
