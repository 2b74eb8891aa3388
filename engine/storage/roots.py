"""Which files a manifest may name: those below its own folder, and objects of a store.

A manifest is data, often another person's. An entry such as ``/etc/passwd``, ``../../private.png`` or ``file:///...``
would take a file of the machine that reads it into the output, so it has to be allowed (``allow_outside``).
"""

from __future__ import annotations

import os

from engine.storage.filesystem import absolute, is_uri, resolve
from engine.storage.pictures import file_of


def lies_outside(image: str, folder: str) -> bool:
    """Whether an entry leads to a local file that is not below the manifest's folder.

    Links are not followed: who makes a link in the folder of the data may also copy there.

    Args:
        image: path or URI as in the manifest.
        folder: local path or URI of the manifest's folder.
    """
    place = absolute(file_of(resolve(image, folder)))
    if is_uri(place):
        return False  # the store's own rights decide
    if is_uri(folder):
        return True
    root = absolute(folder)
    return os.path.commonpath([root, os.path.abspath(place)]) != root


def outside_reason(image: str) -> str:
    """The reason for the error column."""
    return f"'{image}' lies outside the manifest's folder, and allow_outside is not set"
