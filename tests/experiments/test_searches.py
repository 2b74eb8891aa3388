"""Rows of a search's table."""

from __future__ import annotations

import pytest

from experiments.searches import best_row, row_of

ROWS = [
    {"alpha": 1.0, "num_steps": 256, "crf": False, "miou": 0.6},
    {"alpha": 2.0, "num_steps": 256, "crf": False, "miou": 0.5},
    {"alpha": 2.0, "num_steps": 256, "crf": True, "miou": 0.7},
    {"alpha": 4.0, "num_steps": 0, "crf": False, "miou": 0.9},
]


def test_best_row_is_of_those_with_the_given_values() -> None:
    assert best_row(ROWS, num_steps=256, crf=False)["alpha"] == 1.0
    assert best_row(ROWS, num_steps=256, crf=True)["alpha"] == 2.0


def test_a_row_is_found_by_values_that_no_other_has() -> None:
    assert row_of(ROWS, alpha=2.0, num_steps=256, crf=False)["miou"] == 0.5
    with pytest.raises(ValueError, match="too many values"):
        row_of(ROWS, alpha=2.0)
