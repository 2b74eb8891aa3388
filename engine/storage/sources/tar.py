"""WebDataset tars, as img2dataset writes them: members of one sample share their name up to the first dot.

They stand one after the other. The picture is the member whose rest of the name is one of :data:`PICTURES`; the tags
are the entry ``tags`` of the ``.json`` (a list, or names separated by ``;``), else the names in the ``.txt``, separated
by ``;`` or line breaks. A picture all alone has no tags. Where tags are not needed none are read, of the ``.json`` only
the ``image_id``. Only headers and these small members are read; of a picture, where it lies.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.errors import ManifestError, first_line
from engine.storage import filesystem
from engine.storage.pictures import tar_uri
from engine.storage.retries import retry
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import Source, open_source_file
from engine.storage.sources.rows import checked_rows, json_object
from engine.storage.sources.tags import TagReader

PICTURES = (*("jpg", "jpeg", "jfif", "jpe", "png", "webp", "avif", "bmp", "gif", "tif", "tiff", "jp2", "ppm", "pgm"),)
_BLOCK = 512
_THREADS = 16
_AT_ONCE = 64
_NEAR_BYTES, _FAR_BYTES, _LONGEST_BYTES = 4 << 10, 32 << 10, 4 << 20
_SKIPPED_BYTES = 256 << 10
"""In a bucket: less than this between two windows is quicker read than asked for once more."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


@dataclass(slots=True)
class _Window:
    """Reads ahead, so that a header and the small members beside it cost one request.

    In a bucket it grows where the pictures are small, so that one request brings many samples.
    """

    file: Any
    shortest: int
    longest: int
    start: int = 0
    data: bytes = field(default=b"", repr=False)
    length: int = 0

    def read(self, offset: int, size: int) -> bytes:
        end = self.start + len(self.data)
        if not self.start <= offset <= offset + size <= end:
            near = self.start - _SKIPPED_BYTES <= offset <= end + _SKIPPED_BYTES
            self.length = min(2 * self.length, self.longest) if near and self.length else self.shortest
            self.start, self.data = offset, self.file.read_at(max(size, self.length), offset)
        return self.data[offset - self.start : offset - self.start + size]


@dataclass(slots=True)
class _Reader:
    """The window as the file that tarfile wants; by itself it would ask for every header alone."""

    window: _Window
    total: int
    position: int

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, size: int) -> bytes:
        # a damaged header may name a size that no memory holds
        size = min(size, self.total - self.position)
        data = self.window.read(self.position, size) if size > 0 else b""
        self.position += len(data)
        return data


def iter_tars(source: Source, form: TableForm, reader: TagReader, *, needs_tags: bool) -> Iterator[pa.Table]:
    """The rows of all tars, a table of :data:`engine.storage.sources.rows.SCHEMA` for each.

    Args:
        form: may name another entry of the ``.json`` than ``tags``.
        reader: of the tags.
        needs_tags: whether a label must say the tags. Then a ``.json`` that says nothing of them is a mistake, and so
            is a picture with other members but neither ``.json`` nor ``.txt``, or with one that does not stand beside
            it.

    Raises:
        ManifestError: a tar is damaged, a sample's tags cannot be read or do not stand beside its picture, a sample has
            two pictures or a member twice, or a picture is none by the rule, for its name has two dots.
        StorageError: a file cannot be read.
    """
    index = _index(source, form.tags_column[0] if form.tags_column else "tags", needs_tags)
    if index.without_picture:
        example = index.without_picture[0]
        if not index.tars:
            raise ManifestError(
                f"'{source.location}' has no sample with a picture (such as '{example}'); pictures are members that "
                f"end with .{', .'.join(PICTURES)}"
            )
        reader.notes[f"{len(index.without_picture)} samples have no picture (such as '{example}') and are left out"] = (
            None
        )
    with pq.ParquetFile(index.file.name) as file:
        for group, location in enumerate(index.tars):
            rows = file.read_row_group(group)
            columns = {name: rows.column(name).to_pylist() for name in _RAW.names}
            for name in ("image_id", "tags"):
                columns[name] = [json.loads(value) for value in columns[name]]
            yield checked_rows(columns, f"'{location}'", 0, reader)


_RAW = pa.schema([(name, pa.string()) for name in ("image_id", "image", "uri", "tags")])
"""The rows as they stand in a tar; image_id and tags, which may be anything, as JSON."""


@dataclass(frozen=True, slots=True)
class _Index:
    """A temporary file with the rows: to walk through tars in a bucket takes a while, and they are asked for twice."""

    file: Any
    tars: tuple[str, ...]
    """The tar of each row group."""
    without_picture: tuple[str, ...]
    """Samples that have no picture."""


@lru_cache(maxsize=1)
def _index(source: Source, tags_entry: str, needs_tags: bool) -> _Index:
    index = tempfile.NamedTemporaryFile(prefix="tag2mask-tars-")  # noqa: SIM115 - lives as long as the cache
    tars: list[str] = []
    without_picture: list[str] = []

    def columns_of(file: str) -> tuple[dict[str, list[Any]], list[str]]:
        return retry(lambda: _columns(file, source.name_of(file), f"'{file}'", tags_entry, needs_tags), file)

    with pq.ParquetWriter(index.name, _RAW, compression="zstd") as writer, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(source.files), _AT_ONCE):
            some = source.files[start : start + _AT_ONCE]
            for file, (columns, missing) in zip(some, pool.map(columns_of, some), strict=True):
                without_picture += missing
                if columns["image"]:
                    for name in ("image_id", "tags"):
                        columns[name] = [json.dumps(value) for value in columns[name]]
                    writer.write_table(pa.table(columns, schema=_RAW), row_group_size=len(columns["image"]))
                    tars.append(file)
    return _Index(index, tuple(tars), tuple(without_picture))


def _columns(
    location: str, name: str, where: str, tags_entry: str, needs_tags: bool
) -> tuple[dict[str, list[Any]], list[str]]:
    """The pictures of a tar, as :func:`checked_rows` takes them, and the samples without one.

    Args:
        name: what the tar is called in their names.
        where: the tar, for the error's sentence.
    """
    columns: dict[str, list[Any]] = {"image_id": [], "image": [], "uri": [], "tags": []}
    tagged_by: list[str] = []
    without_picture: list[str] = []
    apart: dict[str, _Member] = {}
    opened, _ = filesystem.open_filesystem(location)
    local = isinstance(opened, pafs.LocalFileSystem)
    lengths = (_NEAR_BYTES, _NEAR_BYTES) if local else (_FAR_BYTES, _LONGEST_BYTES)
    with open_source_file(location) as file:
        window = _Window(file, *lengths)
        some = (member for member in _members(window, file, where) if not _is_of_macos(member.name))
        for key, members in groupby(some, key=lambda member: _split(member.name)[0]):
            by_kind = _by_kind(members, where)
            picture = next((by_kind[kind] for kind in PICTURES if kind in by_kind), None)
            if picture is None:
                _check_no_picture(by_kind, where)
                without_picture.append(next(iter(by_kind.values())).name)
                label = _label(by_kind) if needs_tags else None
                if label is not None and ("json" in by_kind or key not in apart):
                    apart[key] = label
                continue
            image_id, tags = _tags(window, by_kind, where, tags_entry, needs_tags)
            columns["image_id"].append(image_id)
            columns["image"].append(f"{name}/{picture.name}")
            columns["uri"].append(tar_uri(location, picture.offset, picture.size))
            columns["tags"].append(tags)
            tagged_by.append(next((kind for kind in ("json", "txt") if kind in by_kind), ""))
    if apart:
        pictures = (image.removeprefix(f"{name}/") for image in columns["image"])
        _check_together(pictures, tagged_by, apart, where)
    return columns, without_picture


def _by_kind(members: Iterable[_Member], where: str) -> dict[str, _Member]:
    """The members of a sample by what they are of it.

    Raises:
        ManifestError: one is there twice, or there are two pictures.
    """
    by_kind: dict[str, _Member] = {}
    for member in members:
        kind = _split(member.name)[1]
        if kind in by_kind:
            raise ManifestError(
                f"{where} holds '{member.name}' twice in a row; a name stands for one sample"
                if member.name == by_kind[kind].name
                else f"{where}: '{by_kind[kind].name}' and '{member.name}' are the same part of one sample"
            )
        by_kind[kind] = member
    pictures = [by_kind[kind].name for kind in PICTURES if kind in by_kind]
    if len(pictures) > 1:
        raise ManifestError(
            f"{where}: '{pictures[0]}' and '{pictures[1]}' are two pictures of one sample; give each a name of its own"
        )
    return by_kind


def _check_no_picture(members: dict[str, _Member], where: str) -> None:
    """A picture whose name has a dot too many must not vanish."""
    hidden = next((member for kind, member in members.items() if _is_picture(kind)), None)
    if hidden is not None:
        raise ManifestError(
            f"{where}: the picture '{hidden.name}' has more than one dot in its name, and no picture of its sample "
            "stands beside it; a sample's name ends at the first dot, so names may have one dot only"
        )


def _check_together(pictures: Iterable[str], tagged_by: list[str], apart: dict[str, _Member], where: str) -> None:
    """No picture has its tags elsewhere in the tar.

    Args:
        pictures: names of the members.
        tagged_by: of each, what stands beside it and gives its tags: json, txt or nothing.
        apart: by sample, the label that stands without a picture, a .json before others.
    """
    for name, kind in zip(pictures, tagged_by, strict=True):
        label = apart.get(_split(name)[0])
        # beside a .json nothing else counts, and beside a .txt only the .json would
        if label is not None and (not kind or (kind == "txt" and _split(label.name)[1] == "json")):
            raise ManifestError(
                f"{where}: '{name}' and '{label.name}' are of one sample but do not stand together; "
                "the members of a sample must stand one after the other, as tar --sort=name writes them"
            )


def _is_of_macos(name: str) -> bool:
    """Whether a member is what tar on a Mac puts beside a file, and so between the members of a sample."""
    return name.rpartition("/")[2].startswith("._")


def _is_picture(kind: str) -> bool:
    """Whether a member's last ending is a picture's: ``seg.png``, which a sample may have beside its picture, too."""
    return kind.rpartition(".")[2] in PICTURES


def _label(members: dict[str, _Member]) -> _Member | None:
    """What may say something of a sample's picture: the .json, else the .txt, else another member."""
    kinds = [kind for kind in ("json", "txt", *members) if kind in members and kind and not _is_picture(kind)]
    return members[kinds[0]] if kinds else None


def _split(name: str) -> tuple[str, str]:
    """The sample that a member belongs to, and what it is of it."""
    folder, _, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return f"{folder}/{key}", kind.lower()


def _tags(
    window: _Window, members: dict[str, _Member], where: str, tags_entry: str, needs_tags: bool
) -> tuple[Any, Any]:
    """The image_id, None where there is none, and the tags of a sample."""
    image_id = None
    if "json" in members:
        member = members["json"]
        values = json_object(window.read(member.offset, member.size), f"{where}: '{member.name}'")
        image_id = values.get("image_id")
        if tags_entry in values:
            return image_id, values[tags_entry]
        if "txt" not in members and needs_tags:
            raise ManifestError(
                f"{where}: '{member.name}' has no entry '{tags_entry}' (it has: {', '.join(values) or 'none'}; "
                "tags_column names another), and there is no .txt beside it"
            )
    if "txt" not in members:
        label = _label(members)
        if label is not None and needs_tags:
            raise ManifestError(
                f"{where}: '{label.name}' says no tags, and there is neither a .json with an entry 'tags' nor a .txt "
                "beside it; one of them is needed"
            )
        return image_id, []
    member = members["txt"]
    try:
        text = window.read(member.offset, member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not needs_tags:
            return image_id, []
        raise ManifestError(f"{where}: '{member.name}' is not UTF-8 text") from error
    return image_id, ";".join(text.splitlines())


def _members(window: _Window, file: Any, where: str) -> Iterator[_Member]:
    """The files in a tar, from their headers.

    Plain headers, which is what most of WebDataset's writers leave, are read here, some ten times as fast as by
    tarfile; from the first other one on (of PAX or GNU's long names) it is tarfile that reads, through the window.
    """
    total = file.size()
    offset = 0
    while offset + _BLOCK <= total:
        header = window.read(offset, _BLOCK)
        if not any(header):
            return
        try:
            size = int(header[124:136].rstrip(b" \0") or b"0", 8)
            checksum = int(header[148:156].strip(b" \0"), 8)
        except ValueError:
            size = checksum = -1
        kind = header[156:157]
        if checksum != sum(header) - sum(header[148:156]) + 256 or kind not in b"05" or header[257:262] != b"ustar":
            yield from _members_by_tarfile(_Reader(window, total, offset), where)
            return
        start = offset + _BLOCK
        if start + size > total:
            raise ManifestError(f"{where} is cut off at byte {total}, in the middle of a member")
        if kind != b"5":
            prefix = header[345:500].rstrip(b"\0") if header[263:265] == b"00" else b""
            name = header[:100].partition(b"\0")[0]
            yield _Member((prefix + b"/" + name if prefix else name).decode("utf-8", "replace"), start, size)
        offset = start + -(-size // _BLOCK) * _BLOCK
    if offset < total:
        raise ManifestError(f"{where} is cut off at byte {total}, in the middle of a header")


def _members_by_tarfile(reader: Any, where: str) -> Iterator[_Member]:
    try:
        with tarfile.open(fileobj=reader, mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    yield _Member(member.name, member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined] # else it keeps them all
            reader.seek(archive.offset)
            rest = reader.read(_BLOCK)
            if any(rest):  # after the first member tarfile takes a damaged header for the end
                if len(rest) < _BLOCK:
                    raise ManifestError(f"{where} is cut off at byte {reader.total}, in the middle of a header")
                raise ManifestError(f"{where} is damaged at byte {archive.offset}: no member starts there")
    except tarfile.TarError as error:
        raise ManifestError(f"{where} is not a readable tar: {first_line(error)}") from error
