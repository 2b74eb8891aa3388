"""Which columns of a table hold the image and its tags: named by the user, found by usual names, or of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ManifestError
from engine.storage.sources.tags import shown

_IMAGE_NAMES = (
    *("image", "imagepath", "imagefile", "imagefilename", "imagename", "imageuri", "filename", "filepath", "file"),
    *("path", "uri", "img", "imgpath", "jpg", "png"),
)
_TAGS_NAMES = (
    *("tags", "tag", "labels", "label", "labelname", "labelnames", "classes", "class", "classname", "classnames"),
    *("categories", "category", "choice", "choices", "keywords"),
)
_MOST_LISTED = 20
_FLAGS: dict[Any, bool | None] = {
    0: False,
    1: True,
    None: None,
    "": None,
    "0": False,
    "1": True,
    "0.0": False,
    "1.0": True,
    **{text: text.lower() == "true" for text in ("true", "false", "True", "False", "TRUE", "FALSE")},
}
"""What a cell of a column for one class may hold; blank is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableForm:
    """What the user says of the form of a source; what is left empty is found."""

    image_column: str = ""
    """The column of the images."""
    tags_column: tuple[str, ...] = ()
    """The column of the tags, or the columns of 0 and 1 for each class."""
    tag_separator: str = ""
    """What separates the tags in a cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns that are read of a table."""

    image: str
    image_id: str
    """Empty where there is none."""
    tags: tuple[str, ...]
    """None, one, or with ``one_hot`` one for each class."""
    one_hot: bool = False
    confidence: str = ""
    """Open Images: a row with 0 here says that the tag does not apply."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [name for name in (self.image, self.image_id, *self.tags, self.confidence) if name]

    @property
    def notes(self) -> dict[str, None]:
        """What a user should know of the choice, a sentence each."""
        notes = []
        if self.image != "image":
            notes.append(f"images are in the column '{self.image}'")
        if self.one_hot:
            listed = ", ".join(self.tags[:_MOST_LISTED]) + (", ..." if len(self.tags) > _MOST_LISTED else "")
            notes.append(f"columns of 0 and 1 are the classes (tags_column chooses others): {listed}")
        elif self.tags and self.tags != ("tags",):
            notes.append(f"tags are in the column '{self.tags[0]}'")
        return dict.fromkeys(notes)

    def taken(self, batch: Mapping[str, Any], where: str, first_row: int) -> dict[str, Any]:
        """The columns of a batch as image, image_id and tags.

        Args:
            batch: the columns :attr:`names`, as lists or Arrow arrays of equal length; those that are missing are not
                given.
            where: the file, for the error's sentence.
            first_row: rows of the file before these.

        Raises:
            ManifestError: a cell of a class's column is neither 0 nor 1.
        """
        out = {"image": batch[self.image]}
        if self.image_id:
            out["image_id"] = batch[self.image_id]
        if self.one_hot:
            out["tags"] = self._classes(batch, where, first_row)
        elif self.tags:
            out["tags"] = batch[self.tags[0]]
        if self.confidence:
            flags = _flags(_plain(batch[self.confidence]), strict=False)
            tags = _plain(out["tags"])
            out["tags"] = [None if flag is False else tag for flag, tag in zip(flags, tags, strict=True)]
        return out

    def _classes(self, batch: Mapping[str, Any], where: str, first_row: int) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in _plain(batch[self.image])]
        for name in self.tags:
            values = _plain(batch[name])
            for row, flag in enumerate(_flags(values, strict=False)):
                if flag is True:
                    found[row].append(name)
                elif flag is _NO_FLAG:
                    raise ManifestError(
                        f"{where}, row {first_row + row + 1} has {shown(values[row])} in the column '{name}' of a "
                        "class; give 0 or 1"
                    )
        return found


_NO_FLAG = object()


def _plain(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else values.to_pylist()


def _flags(values: Sequence[Any], *, strict: bool) -> list[Any]:
    """True, False, or None where blank; of anything else :data:`_NO_FLAG`, or with ``strict`` nothing at all."""
    flags: list[Any] = []
    for value in values:
        key = None if value != value else value.strip() if isinstance(value, str) else value
        try:
            flags.append(_FLAGS[key])
        except (KeyError, TypeError):
            if strict:
                return []
            flags.append(_NO_FLAG)
    return flags


def choose_columns(
    location: str,
    names: Sequence[str],
    form: TableForm,
    *,
    needs_tags: bool,
    values_of: Callable[[str], Sequence[Any]],
) -> Columns:
    """The columns to read of a table.

    Args:
        location: of the table, for the error's sentence.
        names: of all its columns.
        needs_tags: whether there must be tags.
        values_of: the first values of a column.

    Raises:
        ManifestError: a column that the user names, or one of images or tags, is missing, or there are several.
    """
    for thing, wanted in (("image_column", (form.image_column,)), ("tags_column", form.tags_column)):
        missing = next((name for name in wanted if name and name not in names), None)
        if missing is not None:
            raise ManifestError(f"'{missing}' is no column of '{location}' (it has: {', '.join(names)})", thing=thing)
    of_open_images = "ImageID" in names and "LabelName" in names
    image = form.image_column or ("ImageID" if of_open_images else _found(location, names, _IMAGE_NAMES, "image"))
    image_id = "image_id" if "image_id" in names and image != "image_id" else ""
    rest = [name for name in names if name not in (image, image_id)]
    tags = form.tags_column
    if not tags:
        found = _found(location, rest, _TAGS_NAMES, "tags", refuse=needs_tags)
        tags = (found,) if found else ()

    def holds_flags(name: str) -> bool:
        return any(flag is not None for flag in _flags(values_of(name), strict=True))

    one_hot = len(tags) > 1
    if len(form.tags_column) == 1 and _plain_letters(tags[0]) not in _TAGS_NAMES:
        one_hot = holds_flags(tags[0])  # the only class is called as its column
    if not tags and image:
        tags = tuple(filter(holds_flags, rest))
        tags, one_hot = (tags, True) if len(tags) > 1 else ((), False)
    missing_columns = [f"'{kind}'" for kind, there in (("image", image), ("tags", tags or not needs_tags)) if not there]
    if missing_columns:
        needed = "image and tags, optionally" if needs_tags else "image, optionally tags and"
        raise ManifestError(
            f"'{location}' has no column {' and '.join(missing_columns)} (it has: {', '.join(names) or 'none'}); it "
            f"needs {needed} image_id, or image_column and tags_column name others"
        )
    chosen = Columns(
        image=image,
        image_id=image_id,
        tags=tags,
        one_hot=one_hot,
        confidence="Confidence" if of_open_images and "Confidence" in names else "",
    )
    twice = next((name for name in chosen.names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ManifestError(f"'{location}' has the column '{twice}' twice")
    return chosen


def _plain_letters(name: str) -> str:
    return "".join(one for one in name.lower() if one.isalnum())


def _found(location: str, names: Sequence[str], usual: Iterable[str], kind: str, *, refuse: bool = True) -> str:
    """The column of the contract's name, else the one with a usual name; empty for none.

    Raises:
        ManifestError: there are several, and ``refuse``.
    """
    if kind in names:
        return kind
    usual = set(usual)
    found = [name for name in names if _plain_letters(name) in usual]
    if len(set(found)) < 2:
        return found[0] if found else ""
    if not refuse:
        return ""
    raise ManifestError(
        f"'{location}' has no column '{kind}', but {' and '.join(repr(name) for name in found)}; name one of them as "
        f"{kind}_column"
    )
