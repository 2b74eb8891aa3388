"""One bad image among many."""

from __future__ import annotations

import weakref

import pytest
import torch

from engine.guard import BrokenProcessError, guarded
from engine.records import Batch


class Doubler:
    """A stage that chokes on some values and passes rows with an error on, as all stages do."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.num_calls = 0

    def __call__(self, batch: Batch) -> Batch:
        self.num_calls += 1
        doubled = []
        for value, error in zip(batch["cam"], batch["error"], strict=True):
            if error is None and value in self.bad:
                raise RuntimeError(f"{value} is\n   too odd")
            doubled.append(None if error is not None else 2 * value)
        return {"image_id": batch["image_id"], "error": batch["error"], "doubled": doubled}


def _batch(count: int) -> Batch:
    return {
        "image_id": [str(row) for row in range(count)],
        "cam": list(range(count)),
        "error": [None] * count,
    }


def test_bad_row_becomes_an_error_row_and_costs_no_other() -> None:
    batch = _batch(9)
    batch["error"][2] = "fetch: gone"
    out = guarded("walk", Doubler(4, 7), batch)
    assert out["image_id"] == batch["image_id"]
    assert out["doubled"] == [None if row in (2, 4, 7) else 2 * row for row in range(9)]
    expected = {2: "fetch: gone", 4: "walk: 4 is too odd", 7: "walk: 7 is too odd"}
    assert out["error"] == [expected.get(row) for row in range(9)]
    assert batch["error"].count(None) == 8


def test_tensors_of_a_pass_that_failed_are_gone_before_its_rows_are_done_again() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def stage(batch: Batch) -> Batch:
        left.append(sum(one() is not None for one in alive))
        activations = torch.zeros(4)
        alive.append(weakref.ref(activations))
        if any(error is None for error in batch["error"]):
            raise RuntimeError("CUDA out of memory")
        return batch

    out = guarded("cam", stage, _batch(3))
    assert out["error"] == ["cam: CUDA out of memory"] * 3
    assert left == [0] * 7


def test_batch_without_trouble_is_one_call() -> None:
    stage = Doubler()
    guarded("walk", stage, _batch(50))
    assert stage.num_calls == 1


def test_exception_without_words_is_named_by_its_kind() -> None:
    def stage(batch: Batch) -> Batch:
        if batch["error"][0] is None:
            raise ZeroDivisionError
        return batch

    assert guarded("crf", stage, {"error": [None]})["error"] == ["crf: ZeroDivisionError"]


def test_failure_that_is_no_rows_fault_is_raised() -> None:
    def stage(batch: Batch) -> Batch:
        raise RuntimeError("the network is gone")

    with pytest.raises(RuntimeError, match="the network is gone"):
        guarded("cam", stage, {"error": ["fetch: gone"]})
    with pytest.raises(RuntimeError, match="the network is gone"):
        guarded("cam", stage, {"error": [None]})


@pytest.mark.parametrize("count", [1, 3])
def test_gpu_that_answers_this_process_no_more_is_no_rows_fault(count: int) -> None:
    def stage(batch: Batch) -> Batch:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(BrokenProcessError, match="illegal memory access"):
        guarded("cam", stage, _batch(count))


def test_gpu_without_room_for_an_image_is_that_rows_error() -> None:
    def stage(batch: Batch) -> Batch:
        if batch["error"] == [None]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return batch

    out = guarded("cam", stage, {"cam": [0], "error": [None]})
    assert out == {"cam": [None], "error": ["cam: CUDA out of memory. Tried to allocate 9.00 GiB"]}
