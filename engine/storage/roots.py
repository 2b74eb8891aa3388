"""Restrict the files that a manifest may refer to: those in its own folder, and objects in a store.

Manifests often come from other people. An entry such as ``/etc/passwd``, ``../../private.png`` or ``file:///...`` would
copy a private local file into the output, so such entries must be allowed explicitly (``allow_outside``).
"""

from __future__ import annotations

import os

from engine.storage.filesystem import absolute, is_uri, resolve
from engine.storage.pictures import file_of


def lies_outside(image: str, folder: str) -> bool:
    """Whether an entry refers to a local file outside the manifest's folder.

    Links are not followed: whoever can create a link in the data folder can also copy files there.

    Args:
        image: Path or URI as in the manifest.
        folder: Local path or URI of the manifest's folder.
    """
    place = absolute(file_of(resolve(image, folder)))
    if is_uri(place):
        return False  # the store has its own access control
    if is_uri(folder):
        return True
    root = absolute(folder)
    return os.path.commonpath([root, os.path.abspath(place)]) != root


def outside_reason(image: str) -> str:
    """Return the reason for the error column."""
    return f"'{image}' lies outside the manifest's folder, and allow_outside is not set"
