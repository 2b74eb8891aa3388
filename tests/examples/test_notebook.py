"""The notebook runs from its first cell to its last on what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.conftest import ROOT
from tests.engine.export.examples import jpeg, write_labeled_folder
from tests.engine.stages.examples import write_network


def test_notebook_labels_trains_and_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "demo"
    run.mkdir(parents=True)
    write_labeled_folder(run)
    (run / "data" / "photos" / "4.jpg").write_bytes(jpeg(40, 60))
    (run / "scenes").symlink_to(run / "data")
    for kind in ("cam", "affinity"):
        (run / kind).mkdir()
        write_network(run / kind, kind)
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    book = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    names: dict[str, Any] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    plt.close("all")
    assert all(result.error is None for result in names["results"])
    assert names["result"].confidence == max(result.confidence for result in names["results"])
    assert names["batch"]["mask"].shape[0] > 1
    assert "IoU of the mask" in capsys.readouterr().out
