"""Class files: the classes, and which other tags (synonyms, children) count as each.

A text file has a class per line, as ``dog`` or ``dog: puppy, hound``; a name in double quotes is taken as it is. A YAML
file has a list of classes, or a mapping from each class to its other names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from engine.storage.sources.tags import plain_name

_COLON = re.compile(r":(?:\s+|$)")
_MOST_LISTED = 12
_MOST_KEPT, _MOST_HELD = 1000, 1_000_000

Entry = tuple[str, list[str]]
"""A class and its other names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The classes 1..C, and the tags that count as one of them."""

    class_names: tuple[str, ...]
    synonyms: dict[str, str] = field(default_factory=dict)
    """Other name to class."""


def text_entries(text: str) -> list[Entry]:
    """The entries of a class file in text."""
    return [_text_entry(line.strip()) for line in text.rstrip().split("\n")] if text.strip() else []


def _text_entry(line: str) -> Entry:
    if line.startswith('"') and line.endswith('"'):
        try:
            return plain_name(json.loads(line)), []
        except ValueError:
            return plain_name(line), []
    name, *others = _COLON.split(line, maxsplit=1)
    return plain_name(name), _names(",".join(others).split(","))


def class_line(name: str) -> str:
    """The line of a class file that names this class and nothing else."""
    return json.dumps(name, ensure_ascii=False) if _COLON.search(name) or name.startswith('"') else name


def yaml_entries(text: str) -> list[Entry]:
    """The entries of a class file in YAML.

    Raises:
        ValueError: It is not YAML, or no list or mapping of names.
    """
    try:
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ValueError(f"is not YAML: {getattr(error, 'problem', None) or error}{line}") from error
    except RecursionError as error:
        raise ValueError("is not YAML: nested too deep") from error
    parts = found if isinstance(found, list) else [found] if isinstance(found, dict) else []
    return [entry for part in parts for entry in _yaml_part(part)]


class _Loader(yaml.BaseLoader):  # type: ignore[misc]  # yaml has no types
    """Reads every scalar as text ("no", "1") and refuses a key that occurs twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key.value, str)]
        for name, count in Counter(names).items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{name}' occurs {count} times", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def _yaml_part(part: Any) -> list[Entry]:
    if isinstance(part, str):
        return [(plain_name(part), [])]
    if not isinstance(part, dict):
        raise ValueError(f"has {str(part)[:40]!r} where a class is expected")
    entries: list[Entry] = []
    for name, others in part.items():
        others = others.split(",") if isinstance(others, str) else others
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise ValueError(f"must give the other names of '{name}' as a list of names")
        entries.append((plain_name(name), _names(others)))
    return entries


def _names(parts: Iterable[str]) -> list[str]:
    return [name for part in parts if (name := plain_name(part))]


class TagTranslation:
    """Replaces other names of classes in the tags of a stream of tables, and counts what it found."""

    def __init__(self, class_names: Iterable[str], synonyms: Mapping[str, str], *, ignore_unknown: bool) -> None:
        """Args:
        synonyms: Other name to class.
        ignore_unknown: Whether to drop tags that are no class.
        """
        self._classes = {name: name for name in class_names} | dict(synonyms)
        self._synonyms = synonyms
        self._ignore_unknown = ignore_unknown
        self._counts: Counter[str] = Counter()

    def applied(self, tags: pa.ChunkedArray) -> pa.ListArray:
        """Translate lists of tags; each name remains once per list."""
        lists = tags.combine_chunks()
        encoded = pc.list_flatten(lists).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        classes = [self._classes.get(name, None if self._ignore_unknown else name) for name in names]
        odd = [number for number, name in enumerate(names) if name in self._synonyms or name not in self._classes]
        if not odd:
            return lists
        counts = np.bincount(encoded.indices.to_numpy(), minlength=len(names))
        self._counts.update({names[number]: int(counts[number]) for number in odd})
        if len(self._counts) > _MOST_HELD:
            self._counts = Counter(dict(self._counts.most_common(_MOST_HELD // 2)))
        translated = pa.array(classes, pa.string()).take(encoded.indices)
        codes = translated.dictionary_encode().indices.fill_null(-1).to_numpy()
        rows = pc.list_parent_indices(lists).to_numpy()
        known = np.flatnonzero(codes >= 0)
        # not by Arrow's group_by, which may give the groups in another order than the rows
        _, first = np.unique(rows[known] * len(names) + codes[known], return_index=True)
        kept = known[np.sort(first)]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(lists)))]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, translated.take(pa.array(kept)))

    @property
    def ignored(self) -> dict[str, int]:
        """The most common tags that were dropped, with their number of images."""
        return dict(self._unknown().most_common(_MOST_KEPT)) if self._ignore_unknown else {}

    @property
    def notes(self) -> list[str]:
        """What a user should know of the translation, a sentence each."""
        notes, unknown = [], self._unknown()
        renamed = Counter({name: count for name, count in self._counts.items() if name in self._synonyms})
        if renamed:
            notes.append(f"tags that count as a class: {_listed(renamed, lambda name: f' as {self._synonyms[name]}')}")
        if unknown and self._ignore_unknown:
            notes.append(f"warning: tags that are no classes are ignored (unknown_tags): {_listed(unknown)}")
        by_case = {name.casefold(): name for name in reversed(self._classes)}
        pairs = [(name, by_case[name.casefold()]) for name in unknown if name.casefold() in by_case]
        notes += [f"warning: tag '{name}' differs from '{known}' in case alone" for name, known in pairs[:_MOST_LISTED]]
        return notes

    def _unknown(self) -> Counter[str]:
        return Counter({name: count for name, count in self._counts.items() if name not in self._synonyms})


def _listed(counts: Counter[str], more: Any = lambda _: "") -> str:
    rest = f" and {len(counts) - _MOST_LISTED} more" if len(counts) > _MOST_LISTED else ""
    return ", ".join(f"{name} {count}{more(name)}" for name, count in counts.most_common(_MOST_LISTED)) + rest
