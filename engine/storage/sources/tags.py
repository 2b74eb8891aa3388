"""Cells of tags to lists of names, the same for manifests, tars and imported tables.

A cell is a list, or text: names separated by ``;``, a list as JSON, Python, NumPy or PostgreSQL write it, or the
choices of a Label Studio export. Another separator is taken where it is plainly meant, for the whole source.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import ManifestError

_BETWEEN = "\0"
_MOST_SEEN = 100_000
_CAPTION_WORDS = 4
_SHOWN = 60
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_ITEM = re.compile(rf"{_QUOTED.pattern}|[^,'\"\[\]{{}}:]+")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
_JOINERS = re.compile("[\u200c\u200d]")
"""Zero-width letters that mean something between letters of some scripts and in emoji, and nothing beside ASCII."""
_NOT_PLAIN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def shown(value: object) -> str:
    """A value for an error's sentence, not longer than a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text of any width."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_caption(name: str) -> bool:
    """Whether a name has so many words that it is rather a sentence."""
    return len(name.split()) >= _CAPTION_WORDS


def plain_name(name: str) -> str:
    """A class name in one form: NFC, plain blanks, none around it, no invisible letters."""
    visible = name.strip()
    if visible.isascii():
        return visible
    visible = _INVISIBLE.sub("", visible)
    if (without := _JOINERS.sub("", visible)).isascii():
        visible = without
    visible = "".join(" " if unicodedata.category(one) == "Zs" else one for one in visible).strip()
    return unicodedata.normalize("NFC", visible)


def unique_names(names: Iterable[str]) -> list[str]:
    """Names in the form of :func:`plain_name`, each once, in their order."""
    return list(dict.fromkeys(plain for name in names if (plain := plain_name(name))))


def check_letters(name: str) -> None:
    """Raises ValueError where a class name holds what breaks the lines of files."""
    if _NOT_PLAIN.search(name) is not None:
        raise ValueError(f"{shown(name)} holds a line break or another control character")


class TagReader:
    """Reads the cells of one pass over a source; what it finds out in the first cells holds for all that follow."""

    def __init__(self, separator: str = "", *, known: Iterable[str] = (), strict: bool = True) -> None:
        """Args:
        separator: what stands between names in a cell of text; empty finds it.
        known: names of the classes, where they are known already.
        strict: whether doubtful cells are refused; else they are taken as they are.
        """
        self._separator = separator
        self._given = bool(separator)
        self._known = frozenset(known)
        self._strict = strict
        self._seen: set[str] = set()
        self.notes: dict[str, None] = {}
        """What was done to the tags, a sentence each."""

    def lists(self, cells: Any, where: str, first_row: int = 0) -> pa.Array:
        """The names of each cell, each once, in their order.

        Args:
            cells: a Python list or an Arrow array of text, lists of text or nulls.
            where: the file, for the error's sentence.
            first_row: rows of the file before these.

        Raises:
            ManifestError: a cell holds something else, or it is not plain what separates its names.
        """
        kind = getattr(cells, "type", None)
        if kind is not None and (pa.types.is_dictionary(kind) or pa.types.is_null(kind)):
            cells, kind = cells.cast(pa.string()), pa.string()
        if kind is None:
            return self._of_python(cells, where, first_row)
        if is_text(kind):
            return self._each_once(cells.cast(pa.string()), self._parts_of_text, where, first_row)
        if _is_list(kind) and is_text(kind.value_type):
            lists = cells.cast(pa.list_(pa.string()))
            joined = pc.binary_join(lists, _BETWEEN)
            if joined.null_count == lists.null_count and not _holds(lists.flatten(), _BETWEEN):
                return self._each_once(joined, lambda text: text.split(_BETWEEN), where, first_row, plain=False)
        return self._one_by_one(cells.to_pylist(), where, first_row)

    def _of_python(self, cells: Sequence[Any], where: str, first_row: int) -> pa.Array:
        try:
            if all(cell is None or isinstance(cell, str) for cell in cells):
                return self.lists(pa.array(cells, pa.string()), where, first_row)
            if all(isinstance(cell, list) for cell in cells):
                return self.lists(pa.array(cells, pa.list_(pa.string())), where, first_row)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
            pass  # other things than text among them
        return self._one_by_one(cells, where, first_row)

    def _each_once(
        self, text: pa.Array, parts: Callable[[str], Iterable[str]], where: str, first_row: int, *, plain: bool = True
    ) -> pa.Array:
        """What is written alike is read once, for the same tags come again and again."""
        encoded = pc.fill_null(text, "").dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        cells = encoded.dictionary.to_pylist()

        def row_of(cell: int) -> str:
            return f"{where}, row {first_row + pc.index(encoded.indices, cell).as_py() + 1}"

        if plain:
            self._find_separator(cells, row_of)
        names = [self._names(cell, parts, partial(row_of, number)) for number, cell in enumerate(cells)]
        return pa.array(names, pa.list_(pa.string())).take(encoded.indices)

    def _one_by_one(self, cells: Sequence[Any], where: str, first_row: int) -> pa.Array:
        texts = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str)))
        self._find_separator(texts, lambda text: f"{where}, row {first_row + list(cells).index(texts[text]) + 1}")
        flags = [cell for cell in cells if isinstance(cell, list) and cell]
        if flags and all(type(value) in (int, bool) and value in (0, 1) for cell in flags for value in cell):
            raise ManifestError(
                f"{where} has tags such as {shown(flags[0])}; give names, or a column of 0 and 1 for each class"
            )
        names = [
            self._names(cell, self._parts, partial("{}, row {}".format, where, row))
            for row, cell in enumerate(cells, start=first_row + 1)
        ]
        return pa.array(names, pa.list_(pa.string()))

    def _names(self, cell: Any, parts: Callable[[Any], Iterable[str]], where: Callable[[], str]) -> list[str]:
        try:
            return self._clean(parts(cell))
        except ValueError as error:
            if not self._strict:
                return [str(cell)]  # no class is called so
            raise ManifestError(f"{where()} has the tag {error}") from error
        except TypeError as error:
            raise ManifestError(f"{where()} has {error}; give a list of names, or names separated by ';'") from error

    def _parts(self, cell: object) -> Iterable[str]:
        """Raises TypeError for what names nothing."""
        if cell is None or cell != cell:  # pandas' NaN
            return ()
        if isinstance(cell, str):
            return self._parts_of_text(cell)
        if not isinstance(cell, list | tuple):
            raise TypeError(f"tags {shown(cell)}")
        for name in cell:
            if name is not None and (isinstance(name, bool) or not isinstance(name, int | str)):
                raise TypeError(f"a tag {shown(name)}")
        return [str(name) for name in cell if name is not None]

    def _parts_of_text(self, text: str) -> Iterable[str]:
        listed = None if self._given else _listed(text.strip())
        if listed is not None:
            self.notes["tags are read from lists written as text"] = None
            return listed
        return text.split(self._separator or ";")

    def _clean(self, parts: Iterable[str]) -> list[str]:
        parts = list(parts)
        names = unique_names(parts)
        for name in names:
            check_letters(name)
            if not name.isascii() and _HALF_CHARACTER.search(name):
                raise ValueError(f"{shown(name)} with half a character; give Unicode text")
        if not {part.strip() for part in parts} <= {*names, ""}:
            self.notes["invisible or composed letters of tags are normalised"] = None
        return names

    def _find_separator(self, cells: list[str], row_of: Callable[[int], str]) -> None:
        """Decide what separates names, once there is a cell that shows it.

        Raises:
            ManifestError: a later cell contradicts it, or it is not plain whether a comma separates.
        """
        if self._given or self._separator == ";":
            return
        texts = {number: cell for number, cell in enumerate(cells) if cell and not _is_bracketed(cell.strip())}
        semicolon = next((number for number, text in texts.items() if ";" in text), None)
        if semicolon is not None:
            if self._separator and self._strict:
                raise ManifestError(
                    f"{row_of(semicolon)} has tags {shown(cells[semicolon])}, but rows before it are separated by "
                    f"'{self._separator}'; give the one that separates names, as tag_separator"
                )
            self._separator = self._separator or ";"
        if self._separator:
            return
        whole = {number: text for number, text in texts.items() if text.strip() not in self._known}
        piped = any("|" in text for text in whole.values())
        split = {number: _split(text, ",") for number, text in whole.items() if "," in text}
        split = {number: parts for number, parts in split.items() if not _mostly_captions(parts)}
        if piped or split:
            recurs = self._recur(split, [part for text in whole.values() for part in _split(text, "|")])
            if piped and split and recurs and self._strict:
                number = next(iter(split))
                raise ManifestError(
                    f"{row_of(number)} has tags {shown(cells[number])}, but other rows are separated by '|'; give the "
                    "one that separates names, as tag_separator"
                )
            if not piped and not recurs:
                if not self._strict:
                    return
                number = next(iter(split))
                raise ManifestError(
                    f"{row_of(number)} has tags {shown(cells[number])}; names are separated by ';'. Set tag_separator "
                    "to ',' if the comma separates names, or to ';' if it is a part of a name"
                )
            self._separator = "|" if piped else ","
            self.notes[f"tags are separated by '{self._separator}'"] = None
        elif len(self._seen) < _MOST_SEEN:
            self._seen.update(text.strip() for text in texts.values())

    def _recur(self, split: dict[int, list[str]], texts: Iterable[str]) -> bool:
        """Whether a part of a cell is named elsewhere too."""
        alone = {text.strip() for text in texts if "," not in text} | self._seen | self._known
        counts = Counter(part for parts in split.values() for part in dict.fromkeys(parts))
        return any(part in alone or count > 1 for part, count in counts.items())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _holds(texts: pa.Array, part: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, part)).as_py())


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _mostly_captions(parts: list[str]) -> bool:
    return sum(len(part.split()) for part in parts) >= (_CAPTION_WORDS - 1) * len(parts)


def _is_bracketed(text: str) -> bool:
    return len(text) >= 2 and _BRACKETS.get(text[0]) == text[-1]


def _listed(text: str) -> list[str] | None:
    """The names of a list that is written as text; None for what is none.

    JSON, Python (``['a', 'b']``), NumPy (without commas), PostgreSQL (``{a,b}``), Label Studio (``{"choices": [..]}``).

    Raises:
        ValueError: it is in brackets or braces, but no list of names.
    """
    if not _is_bracketed(text):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict) and list(values) == ["choices"]:
        values = values["choices"]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    inner = text[1:-1]
    if text[0] == "(" and not _QUOTED.search(inner):
        return None  # as in LVIS: "crab (animal)"
    if _ITEM.sub("", inner).strip(", \n"):
        raise ValueError(f"{shown(text)}, which is not a list of names")
    return [str(ast.literal_eval(item)) if _QUOTED.fullmatch(item) else item.strip() for item in _ITEM.findall(inner)]
