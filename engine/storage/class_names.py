"""The classes: from a file, with the other names of each, or the tags that occur."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import pyarrow.compute as pc

from engine.errors import ManifestError, StorageError, about
from engine.records import IGNORE_16
from engine.storage import filesystem
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import find_source
from engine.storage.sources.tags import check_letters, is_caption
from engine.storage.user_manifest import iter_tables
from engine.storage.vocabulary import Entry, Vocabulary, text_entries, yaml_entries

BACKGROUND = "background"
"""Name of class 0."""
_YAML = (".yaml", ".yml")
_BESIDE = ("classes.txt", "classes.yaml")


def read_class_names(
    location: str,
    class_names_file: str = "",
    form: TableForm = TableForm(),  # noqa: B008 - frozen
) -> tuple[str, ...]:
    """The names of the classes 1..C.

    Args:
        location: the manifest, or the files that hold the images.
        class_names_file: as :mod:`engine.storage.vocabulary`; empty takes ``classes.txt`` or ``classes.yaml`` beside
            the manifest, else the sorted set of the manifest's tags.
        form: what the user says of the manifest's form.

    Raises:
        UserError: a name is blank, occurs twice or is 'background', there are none or too many, they are captions or 0
            and 1, or a file cannot be read.
    """
    named = read_vocabulary(location, class_names_file)
    if named is not None:
        return named.class_names
    where = f"the tags of '{location}'"
    names = check_class_names(_all_tags(location, form), where)
    with about("data"):
        _check_are_names(names, where)
    return names


def read_vocabulary(location: str, class_names_file: str = "") -> Vocabulary | None:
    """The classes and their other names where a file names them; None where only the tags do.

    Args and errors as :func:`read_class_names`.
    """
    with about("classes" if class_names_file else "data"):
        source = class_names_file or _file_beside(location)
        if source is None:
            return None
        try:
            text = filesystem.read_bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError(f"'{source}' is not UTF-8 text") from error
        try:
            entries = (yaml_entries if filesystem.ending(source) in _YAML else text_entries)(text)
        except ValueError as error:
            raise ManifestError(f"'{source}' {error}") from error
        names = check_class_names([name for name, _ in entries], f"'{source}'")
        return Vocabulary(class_names=names, synonyms=_checked_synonyms(entries, f"'{source}'"))


def _file_beside(location: str) -> str | None:
    """Raises ManifestError where there are two."""
    folder = find_source(location).folder
    text, yaml = (filesystem.join(folder, name) for name in _BESIDE)
    if not filesystem.exists(text):
        return yaml if filesystem.exists(yaml) else None
    both = False
    with suppress(StorageError):  # an account that may not list a bucket cannot look for a second file
        both = filesystem.exists(yaml)
    if both:
        raise ManifestError(f"has both '{text}' and '{yaml}' beside it; remove one, or name one as classes")
    return text


def _checked_synonyms(entries: Sequence[Entry], where: str) -> dict[str, str]:
    """Other name to class.

    Raises:
        ManifestError: A name is also a class, or occurs twice.
    """
    names = {name for name, _ in entries}
    synonyms: dict[str, str] = {}
    for name, others in entries:
        for other in others:
            if other in names or other == BACKGROUND:
                raise ManifestError(f"{where} gives '{other}' as another name of '{name}', but it is a class by itself")
            if other in synonyms:
                raise ManifestError(
                    f"{where} gives '{other}' as another name of "
                    + (f"'{name}' twice" if synonyms[other] == name else f"both '{synonyms[other]}' and '{name}'")
                )
            try:
                check_letters(other)
            except ValueError as error:
                raise ManifestError(f"{where}: the name {error}") from error
            synonyms[other] = name
    return synonyms


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in upper and lower case alone."""
    first: dict[str, str] = {}
    return [(first[key], name) for name in names if first.setdefault(key := name.casefold(), name) != name]


def _check_are_names(names: tuple[str, ...], where: str) -> None:
    """Raises ManifestError for what stands in a column of tags and names no classes."""
    captions = [name for name in names if is_caption(name)]
    if 2 * len(captions) > len(names):
        raise ManifestError(
            f"{where} look like captions ('{captions[0][:60]}'); tags are names of classes. Give them in a column or "
            "an entry of their own (tags_column), or list the classes in a file (classes)"
        )
    if set(names) <= {"0", "1"}:
        raise ManifestError(
            f"{where} are {' and '.join(names)} alone; give names, or a column of 0 and 1 for each class, named by it"
        )


def check_class_names(names: list[str], where: str) -> tuple[str, ...]:
    """The names of the classes 1..C, as a file of classes may hold them.

    Args:
        where: what they are from, for the error's sentence.

    Raises:
        ManifestError: a name is blank, occurs twice, is that of the background or breaks its line, or there are none or
            too many.
    """
    if not names:
        raise ManifestError(f"{where}: there is no class; at least one is needed")
    if len(names) >= IGNORE_16:
        raise ManifestError(f"{where}: {len(names)} classes are more than {IGNORE_16 - 1}")
    lines: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise ManifestError(f"{where}, line {line} is blank; every line names a class, and its number is the id")
        if name == BACKGROUND:
            raise ManifestError(f"{where}, line {line} names '{BACKGROUND}', which is class 0 by itself; leave it out")
        try:
            check_letters(name)
        except ValueError as error:
            raise ManifestError(f"{where}: the class {error}") from error
        if name in lines:
            raise ManifestError(f"{where}: '{name}' is on lines {lines[name]} and {line}; name a class once")
        lines[name] = line
    return tuple(names)


def _all_tags(location: str, form: TableForm) -> list[str]:
    found: set[str] = set()
    for table in iter_tables(location, form):
        found.update(pc.unique(pc.list_flatten(table.column("tags"))).to_pylist())
    return sorted(found)
