"""Data sets of other programs, and what a job sees once they are imported."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.storage.class_names import read_class_names
from engine.storage.user_manifest import iter_manifest
from jobs.cli.command import main
from tests.engine.export.examples import Labeled, jpeg, ring

job: Any = importlib.import_module("jobs.import")


def imported(
    source: Path, kind: str, out: Path, *options: str, manifest: str = "csv"
) -> tuple[dict[str, Any], list[str]]:
    """For each id its file and tags; and the classes."""
    arguments = ["--source", str(source), "--format", kind, "--out", str(out), "--manifest", manifest, *options]
    assert main(job.Import, job.run, arguments) == 0
    location = str(out / f"manifest.{manifest}")
    rows = {
        image_id: (uri, tags)
        for batch in iter_manifest(location)
        for image_id, uri, tags in zip(batch["image_id"], batch["uri"], batch["tags"], strict=True)
    }
    return rows, list(read_class_names(location))


def tags_of(rows: dict[str, Any]) -> dict[str, list[str]]:
    """Of what :func:`imported` gives, the tags."""
    return {image_id: tags for image_id, (_, tags) in rows.items()}


def refused(source: Path, kind: str, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that is said of a data set that is not imported."""
    capsys.readouterr()
    arguments = ["--source", str(source), "--format", kind, "--out", str(out), *options]
    assert main(job.Import, job.run, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not list(out.glob("manifest.*"))
    return line


def write_pictures(folder: Path, *names: str) -> None:
    """Small pictures at these paths."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(4, 4))


def labeled_items() -> list[Labeled]:
    """Two images for an export."""
    return [
        Labeled(image_id="images/a.jpg", mask=ring(), encoded=jpeg(40, 60)),
        Labeled(image_id="images/b ü.jpg", mask=np.zeros((40, 60), np.uint8), encoded=jpeg(40, 60), tags=()),
    ]
