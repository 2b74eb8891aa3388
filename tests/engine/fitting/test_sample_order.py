"""Which image comes when, on any number of workers and after any number of stops."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.fitting import sample_order
from engine.fitting.sample_order import epoch_order, held_out_of_step, num_steps, samples_of_step, schedule
from engine.storage.subsets import is_held_out

SHARDS = (5, 3, 4)
ALL_ROWS = {(shard, row) for shard, count in enumerate(SHARDS) for row in range(count)}


def _stream(num_samples: int, *, batch_size: int, rng_seed: int = 0) -> list[tuple[int, int, int]]:
    steps = range(-(-num_samples // batch_size))
    stream = [
        sample for step in steps for sample in samples_of_step(SHARDS, step, batch_size=batch_size, rng_seed=rng_seed)
    ]
    return stream[:num_samples]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 17, 30])
def test_every_row_comes_once_an_epoch_however_steps_straddle_epochs(batch_size: int) -> None:
    stream = _stream(36, batch_size=batch_size)
    for epoch in range(3):
        part = stream[12 * epoch : 12 * (epoch + 1)]
        assert {number for number, _, _ in part} == {epoch}
        assert Counter((shard, row) for _, shard, row in part) == Counter(ALL_ROWS)


def test_stream_is_the_same_for_every_batch_size() -> None:
    assert _stream(30, batch_size=4) == _stream(30, batch_size=7)


def test_stream_follows_the_seed_and_nothing_else() -> None:
    first = _stream(12, batch_size=4, rng_seed=1)
    epoch_order.cache_clear()
    assert _stream(12, batch_size=4, rng_seed=1) == first
    assert _stream(12, batch_size=4, rng_seed=2) != first


def test_epochs_differ_in_their_order() -> None:
    stream = _stream(24, batch_size=4)
    assert [sample[1:] for sample in stream[:12]] != [sample[1:] for sample in stream[12:]]


def test_rows_of_far_shards_are_shuffled_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_order, "WINDOW_ROWS", 10)
    order = epoch_order((4,) * 9, 0, rng_seed=77).tolist()
    assert sorted(map(tuple, order)) == [(shard, row) for shard in range(9) for row in range(4)]
    windows = [order[start : start + 12] for start in range(0, 36, 12)]
    assert all(len({shard for shard, _ in window}) == 3 for window in windows)
    assert any(window != sorted(window) for window in windows)


@pytest.mark.parametrize(
    ("num_rows", "num_epochs", "batch_size", "steps"), [(12, 2, 4, 6), (13, 2, 4, 6), (3, 1, 16, 1), (3, 10, 16, 1)]
)
def test_last_incomplete_batch_is_left_out_but_one_step_remains(
    num_rows: int, num_epochs: int, batch_size: int, steps: int
) -> None:
    assert num_steps(num_rows, num_epochs=num_epochs, batch_size=batch_size) == steps


def test_split_follows_the_ids_alone_and_grows_with_the_fraction() -> None:
    ids = [f"image {number}.jpg" for number in range(2000)]
    tenth, half = ({name for name in ids if is_held_out(name, fraction)} for fraction in (0.1, 0.5))
    assert 150 < len(tenth) < 250
    assert 900 < len(half) < 1100
    assert tenth < half
    assert not any(is_held_out(name, 0.0) for name in ids)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 20])
def test_validation_sees_every_held_out_row_once(batch_size: int) -> None:
    steps = -(-12 // batch_size)
    found = [
        place for number in range(steps) for place in held_out_of_step((5, 0, 3, 4), number, batch_size=batch_size)
    ]
    assert found[:12] == [(shard, row) for shard, count in ((0, 5), (2, 3), (3, 4)) for row in range(count)]
    assert found[12:] == [None] * (steps * batch_size - 12)


def test_schedule_validates_after_each_epoch_and_goes_on_anywhere() -> None:
    plan = list(schedule(0, 5, steps_per_epoch=2, held_out_steps=1))
    held_out = (0, True)
    assert plan == [(0, False), (1, False), held_out, (2, False), (3, False), held_out, (4, False), held_out]
    assert list(schedule(2, 5, steps_per_epoch=2, held_out_steps=1)) == plan[3:]
    assert list(schedule(3, 5, steps_per_epoch=2, held_out_steps=1)) == plan[4:]
