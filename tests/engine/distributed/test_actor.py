"""What an actor returns for a shard, and for a failure that is not of one image."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from engine.distributed.actor import PoolActor
from engine.distributed.pools import Pool
from engine.errors import StoreUnavailableError, WeightsError
from engine.records import Batch
from engine.step import Step
from tests.engine.distributed.examples import Measure

SHARD = pa.table({"shard": [7, 7], "encoded": [b"\5", b"\7"], "error": pa.array([None, None], pa.string())})


class Fails:
    """A stage: ends with one error, when it is built or when it is called."""

    def __init__(self, error: Exception, *, when_built: bool) -> None:
        self._error = error
        if when_built:
            raise error

    def __call__(self, batch: Batch) -> Batch:
        raise self._error


def _actor(**stages: Any) -> PoolActor:
    return PoolActor(
        Pool(steps=tuple(Step(name=name, build=build, on="crf") for name, build in stages.items()), max_actors=1)
    )


def test_image_that_fails_becomes_an_error_row_and_the_seconds_travel_with_the_shard() -> None:
    good, bad = _actor(measure=Measure)(SHARD).to_pylist()
    assert (good["height"], good["error"]) == (5, None)
    assert (bad["height"], bad["error"]) == (None, "measure: seven is unlucky")
    assert "measure" in good["seconds"]


@pytest.mark.parametrize(
    ("stage", "error", "when_built"),
    [
        ("cam", WeightsError("'cam' does not exist"), True),
        ("cam", StoreUnavailableError("the store is down"), False),
        ("commit", OSError("No space left on device"), False),
    ],
)
def test_failure_that_is_not_of_one_image_is_passed_on_to_the_driver(
    stage: str, error: Exception, when_built: bool
) -> None:
    failed = _actor(**{stage: partial(Fails, error, when_built=when_built)})(SHARD)
    (row,) = failed.to_pylist()
    assert (row["shard"], row["num_rows"], row["failure"]) == (7, 0, str(error))
    assert _actor(measure=Measure)(failed) is failed
