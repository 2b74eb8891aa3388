"""What jobs.import says, and what it leaves alone; tests/engine/imports holds what it reads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageError
from jobs.cli.command import main
from tests.engine.export.examples import jpeg

job: Any = importlib.import_module("jobs.import")


def test_source_without_an_image_leaves_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}')
    arguments = ["--source", str(tmp_path / "none.json"), "--format", "coco", "--out", str(tmp_path / "out")]
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err == "error: --source contains no images of this format; nothing was written\n"
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_what_was_written_and_what_to_do_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    (tmp_path / "photos" / "dog" / "1.jpg").write_bytes(jpeg(4, 4))
    for out, words in ("photos", ""), ("out", " --allow-outside"):
        arguments = ["--source", str(tmp_path / "photos"), "--format", "folders", "--out", str(tmp_path / out)]
        assert main(job.Import, job.run, arguments) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "1 images; classes: dog"
        assert said[-1] == f"Next: tag2mask run --data {tmp_path / out / 'manifest.csv'}{words} --out runs/mine"


def test_classes_or_manifest_that_cannot_be_read_or_written_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    (tmp_path / "photos" / "dog" / "1.jpg").write_bytes(jpeg(4, 4))
    out = tmp_path / "out"
    (out / "classes.txt").mkdir(parents=True)
    arguments = ["--source", str(tmp_path / "photos"), "--format", "folders", "--out", str(out)]
    assert main(job.Import, job.run, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --out '{out}/classes.txt' is a folder or a device, not a file"
    assert main(job.Import, job.run, [*arguments, "--overwrite"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "classes.txt' cannot be written (Is a directory)" in line

    def no_answer(location: str) -> bool:
        raise StorageError(f"'{location}' failed: SLOW_DOWN")

    monkeypatch.setattr(job, "exists", no_answer)
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err == f"error: --out '{out}/manifest.csv' failed: SLOW_DOWN\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("voc", "contains no annotated images"),
        ("coco", "is a folder"),
        ("folders", "contains no folders"),
        ("parquet", "is not a .parquet file and contains none"),
        ("zip", "must be one of voc, coco, folders, parquet"),
    ],
)
def test_source_of_another_kind_is_the_users_mistake(
    kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    arguments = ["--source", str(tmp_path / "source"), "--format", kind, "--out", str(tmp_path / "out")]
    assert main(job.Import, job.run, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_broken_json_and_manifests_that_are_there_are_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "instances.json"
    arguments = ["--source", str(source), "--format", "coco", "--out", str(tmp_path)]
    for text in (
        *("{", "[]", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}'),
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": null}]}',
    ):
        source.write_text(text)
        assert main(job.Import, job.run, arguments) == 2
        assert "is not a COCO instances file" in capsys.readouterr().err
    values = {
        "images": [{"id": 7, "file_name": "x.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 3}],
        "categories": [{"id": 3, "name": "a;b"}],
    }
    source.write_text(json.dumps(values))
    (tmp_path / "x.jpg").write_bytes(jpeg(4, 4))
    assert main(job.Import, job.run, arguments) == 2
    assert "--manifest must be jsonl" in capsys.readouterr().err
    assert main(job.Import, job.run, [*arguments, "--manifest", "jsonl"]) == 0
    assert main(job.Import, job.run, [*arguments, "--manifest", "jsonl"]) == 2
    assert f"already contains '{tmp_path}/manifest.jsonl'" in capsys.readouterr().err
    assert main(job.Import, job.run, [*arguments, "--manifest", "jsonl", "--overwrite"]) == 0


def test_option_that_the_format_does_not_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, kind, formats in (("images", "voc", "coco and parquet"), ("label-column", "coco", "parquet")):
        arguments = ["--source", str(tmp_path), "--format", kind, "--out", str(tmp_path), f"--{option}", "x"]
        assert main(job.Import, job.run, arguments) == 2
        assert capsys.readouterr().err == f"error: --{option} is for {formats}, not for {kind}\n"
