"""Write TensorBoard event files to a local folder or a bucket."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from types import TracebackType
from typing import Any

from engine.storage import filesystem

UPLOAD_EVERY_S = 30.0


class EventLog:
    """Context manager that logs scalars; each block writes a new file, and TensorBoard merges the files of a folder.

    The file is created with the first scalars.
    """

    def __init__(self, folder: str) -> None:
        """Args:
        folder: Local path or URI; the file is uploaded to a URI periodically, because buckets do not support appending.
        """
        self._folder = folder
        self._remote = filesystem.is_uri(folder)
        self._local = ""
        self._writer: Any = None

    def __enter__(self) -> EventLog:
        return self

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write scalars by name, such as ``training/loss``."""
        if self._writer is None:
            self._open()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if self._remote and time.monotonic() - self._uploaded >= UPLOAD_EVERY_S:
            self._writer.flush()
            self._upload()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if self._remote:
            self._upload()
            self._scratch.cleanup()

    def _open(self) -> None:
        from tensorboardX import SummaryWriter  # slow to import, and workers do not need it

        self._local = filesystem.absolute(self._folder)
        if self._remote:
            self._scratch = tempfile.TemporaryDirectory()
            self._local = self._scratch.name
        self._writer = SummaryWriter(self._local, flush_secs=1, filename_suffix=f".{uuid.uuid4().hex[:8]}")
        self._uploaded = time.monotonic()

    def _upload(self) -> None:
        for name in os.listdir(self._local):
            with open(os.path.join(self._local, name), "rb") as file:
                filesystem.write_bytes(filesystem.join(self._folder, name), file.read())
        self._uploaded = time.monotonic()
