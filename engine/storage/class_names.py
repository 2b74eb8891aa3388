"""The names of the classes: from a file, or the tags that occur."""

from __future__ import annotations

import re

import pyarrow.compute as pc

from engine.errors import ManifestError, MissingError, about
from engine.records import IGNORE_16
from engine.storage import filesystem
from engine.storage.manifest import iter_tables
from engine.storage.sources.find import find_source

BACKGROUND = "background"
"""Name of class 0."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def read_class_names(location: str, class_names_file: str = "") -> tuple[str, ...]:
    """The names of the classes 1..C.

    Args:
        location: the manifest, or the files that hold the images.
        class_names_file: a file with a name a line; empty takes ``classes.txt`` beside the manifest, else the sorted
            set of the manifest's tags.

    Raises:
        UserError: a name is blank, occurs twice or is 'background', there are none or too many, or a file cannot be
            read.
    """
    named = named_classes(location, class_names_file)
    return check_class_names(_all_tags(location), f"the tags of '{location}'") if named is None else named


def named_classes(location: str, class_names_file: str = "") -> tuple[str, ...] | None:
    """The names of the classes where a file names them; None where only the tags do.

    Args and errors as :func:`read_class_names`.
    """
    beside = filesystem.join(find_source(location).folder, "classes.txt")
    source = class_names_file or beside
    with about("classes" if class_names_file else "data"):
        try:
            text = filesystem.read_bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError(f"'{source}' is not UTF-8 text") from error
        except MissingError:
            if class_names_file:
                raise
            return None
        return check_class_names([line.strip() for line in text.rstrip().split("\n") if text.strip()], f"'{source}'")


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
        if _CONTROL.search(name):
            raise ManifestError(f"{where}: the class {name!r} holds a line break or another control character")
        if name in lines:
            raise ManifestError(f"{where}: '{name}' is on lines {lines[name]} and {line}; name a class once")
        lines[name] = line
    return tuple(names)


def _all_tags(location: str) -> list[str]:
    found: set[str] = set()
    for table in iter_tables(location):
        found.update(pc.unique(pc.list_flatten(table.column("tags"))).to_pylist())
    return sorted(found)
