"""engine/storage/retries.py: what is tried again, and for how long."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import pytest

from engine.errors import DeniedError, MissingError, StorageError
from engine.storage import retries
from engine.storage.retries import retry

BUSY = "When reading: AWS Error SLOW_DOWN during GetObject operation: (Request ID: 1234)"


@pytest.fixture
def location() -> str:
    """In a store that no other test has asked."""
    return f"s3://{uuid.uuid4().hex}/key"


def test_transient_errors_are_tried_again_until_the_call_succeeds(location: str) -> None:
    left = [BUSY, "AWS Error NETWORK_CONNECTION: curlCode: 56", "AWS Error UNKNOWN (HTTP status 502)"]

    def call() -> str:
        if left:
            raise OSError(left.pop())
        return "done"

    assert retry(call, location) == "done"
    assert not left


class Clock:
    """In the place of ``time``: nothing passes but what is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def _failing(calls: list[float], clock: Clock) -> None:
    calls.append(clock.monotonic())
    raise OSError(BUSY)


@pytest.mark.parametrize("draw", [0.5, 1.0, 1.5])
def test_patience_ends_in_one_sentence_and_no_attempt_comes_after_it(
    location: str, monkeypatch: pytest.MonkeyPatch, draw: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(retries, "random", SimpleNamespace(uniform=lambda _low, _high: draw))
    calls: list[float] = []
    with pytest.raises(OSError, match=rf"^'{location}' failed: SLOW_DOWN$"):
        retry(lambda: _failing(calls, clock), location, patience_s=1.5)
    pauses = [0.25 * draw, 0.75 * draw, 1.75 * draw]
    assert calls == [0.0, *(pause for pause in pauses if pause <= 1.5)]


def test_store_that_answered_once_is_waited_for_longer_than_one_that_never_did(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PATIENCE_S", 0.0)
    monkeypatch.setattr(retries, "PATIENCE_S", 1.5)
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    stranger: list[float] = []
    with pytest.raises(OSError, match="SLOW_DOWN"):
        retry(lambda: _failing(stranger, clock), location)
    assert len(stranger) == 1
    retry(lambda: None, location)
    friend: list[float] = []
    with pytest.raises(OSError, match="SLOW_DOWN"):
        retry(lambda: _failing(friend, clock), location)
    assert len(friend) >= 3
    assert friend[-1] - friend[0] < 1.5


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", DeniedError),
        ("AWS Error UNKNOWN (HTTP status 400) during ListObjectsV2: ExceptionName: ExpiredToken", DeniedError),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation", MissingError),
        ("AWS Error UNKNOWN (HTTP status 412) during PutObject operation", StorageError),
    ],
)
def test_permanent_errors_are_raised_at_once_with_their_own_type(text: str, kind: type, location: str) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise OSError(text)

    with pytest.raises(OSError, match=location) as caught:
        retry(call, location)
    assert type(caught.value) is kind
    assert len(calls) == 1
