"""The example runs from its first line to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import notebook
from tests.engine.export.examples import jpeg, write_labeled_folder
from tests.engine.stages.examples import write_network


@pytest.mark.slow
def test_example_labels_reads_and_exports(
    tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_labeled_folder(tmp_path)
    (run / "data" / "photos" / "4.jpg").write_bytes(jpeg(40, 60))
    for kind in ("cam", "affinity"):
        (run / kind).mkdir()
        write_network(run / kind, kind)
    summary = notebook.main(str(run), str(run / "data" / "manifest.csv"))
    assert (summary["exported"], summary["skipped"]) == (4, {"mask": 1})
    assert len(json.loads((run / "coco/annotations/instances_train.json").read_text())["images"]) == 4
    shown = capsys.readouterr().out
    assert "photos/0.jpg {'background'" in shown
    assert "'cow': 0}" in shown  # the pixels of each class; no mask of the four has this one
