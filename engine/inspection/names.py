"""Class names that may mean the same: spelled in another way, or a letter apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LEAST_LETTERS = 6
"""Shorter names that differ in a letter are often two things: cat and car, horse and house."""
_NOT_LETTERS = re.compile(r"[\W_]+")
_ODD = re.compile(r"[\[\]{}|,;\"]|^['(]|['(]$")


def odd_names(names: Iterable[str]) -> list[str]:
    """List names that hold brackets, commas, pipes or quotes, as cells do that were not split."""
    return [name for name in names if _ODD.search(name)]


def same_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Group names that differ only in case, punctuation or a plural ending."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stem(name), []).append(name)
    return [tuple(group) for stem, group in groups.items() if stem and len(group) > 1]


def similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pair longer names that differ in one letter: added, left out, replaced, or swapped with the next.

    Two such names share one of the texts that are left when a letter is deleted, so that thousands are compared fast.
    """
    of_text: dict[str, list[str]] = {}
    found: dict[tuple[str, str], None] = {}
    for name in names:
        stem = _stem(name)
        if len(stem) < _LEAST_LETTERS:
            continue
        for text in {stem, *(stem[:place] + stem[place + 1 :] for place in range(len(stem)))}:
            others = of_text.setdefault(text, [])
            found.update({(other, name): None for other in others if _differ_in_a_letter(_stem(other), stem)})
            others.append(name)
    return list(found)


def _stem(name: str) -> str:
    words = _NOT_LETTERS.sub(" ", name.casefold()).split()
    return "".join(_singular(word) for word in words)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _differ_in_a_letter(one: str, other: str) -> bool:
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    left, right = one[start:], other[start:]
    if any(letter.isdigit() for letter in left[:1] + right[:1]):
        return False  # "boeing 737" and "boeing 747" are told apart by their numbers
    swapped = left[:2] == right[:2][::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right or left == right[1:] or left[1:] == right[1:]
