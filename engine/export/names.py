"""File names from image ids: safe on every file system, unique, and reversible where they are short enough.

An id may hold anything: folders, ``..``, quotes, spaces, any letter. A name holds ASCII letters, digits and ``-_.``
alone; every other byte of the UTF-8 text is ``%XX``, as in a URL, so ``urllib.parse.unquote`` gives the text back.
"""

from __future__ import annotations

import hashlib
import posixpath
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

_SAFE = frozenset((string.ascii_letters + string.digits + "-_.").encode())
_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_LONGEST = 160
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """How the names of one export are made."""

    folder: str
    """What all ids start with, up to a ``/``; names leave it out."""
    keeps_ending: bool
    """Whether ``.jpg`` and the like stay in the name, because ids differ in it."""
    hashed: bool
    """Whether a hash stands in every name, because ids differ in capitals alone."""

    def name_of(self, image_id: str) -> str:
        """The name for the files of an image, without their ending."""
        text = image_id[len(self.folder) :]
        if not self.keeps_ending and posixpath.splitext(text)[1].lower() in _PICTURE_ENDINGS:
            text = posixpath.splitext(text)[0]
        name = _escaped(text)
        if self.hashed or len(name) > _LONGEST:
            name = f"{name[:_LONGEST]}-{_hash(image_id.encode('utf-8', 'surrogatepass')):016x}"
        return name


def plan_names(image_ids: Callable[[], Iterable[str]]) -> Naming:
    """The shortest way of naming under which no two images share a name, capitals or not.

    Args:
        image_ids: gives all ids, which are unique, as often as it is called.
    """
    folder = _common_folder(image_ids())
    for keeps_ending, hashed in ((False, False), (True, False)):
        naming = Naming(folder=folder, keeps_ending=keeps_ending, hashed=hashed)
        if _all_differ(naming.name_of(image_id).lower() for image_id in image_ids()):
            return naming
    return Naming(folder=folder, keeps_ending=True, hashed=True)


def _common_folder(image_ids: Iterable[str]) -> str:
    common: str | None = None
    for image_id in image_ids:
        folder = image_id[: image_id.rfind("/") + 1]
        if common is None:
            common = folder
        while not folder.startswith(common):
            common = common[: common.rstrip("/").rfind("/") + 1]
        if not common:
            break
    return common or ""


def _escaped(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in data)
    if name.startswith("."):  # neither hidden nor a way up
        name = "%2E" + name[1:]
    return name[:-1] + "%2E" if name.endswith(".") else name or "%"


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _all_differ(names: Iterable[str]) -> bool:
    """By 64-bit hashes: eight bytes a name, and a false alarm, which does no harm, once in many thousand exports."""
    chunks: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
    waiting: list[int] = []
    for name in names:
        waiting.append(_hash(name.encode()))
        if len(waiting) == _CHUNK:
            chunks.append(np.array(waiting, dtype=np.uint64))
            waiting = []
    hashes = np.concatenate([*chunks, np.array(waiting, dtype=np.uint64)])
    return len(np.unique(hashes)) == len(hashes)
