"""The exported network gives the logits of the original."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from engine.errors import ConfigError
from engine.export import network as portable
from engine.networks import load_network
from jobs import export_network
from jobs.cli.command import main
from jobs.export_network import ExportNetwork
from tests.engine.stages.examples import CLASS_NAMES, write_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network whose last layers are not all zero, as those of a fresh one."""
    root = tmp_path_factory.mktemp("export")
    return write_network(root, "segmentation")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_exported_network_gives_the_logits_of_the_original_at_any_size(
    form: portable.Format, folder: str, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    summary = export_network.run(ExportNetwork(segmentation=folder, out=str(tmp_path), format=form))
    assert summary == json.loads((tmp_path / "network.json").read_text())
    assert summary["class_names"] == ["background", *CLASS_NAMES]
    given = summary["input"]
    assert (given["shape"], given["size_multiple"]) == (["batch", 3, "height", "width"], 32)
    assert (given["fill"], given["normalization"]["std"]) == ([128] * 3, [0.25] * 3)
    data = (tmp_path / summary["file"]).read_bytes()
    network, _ = load_network(folder, "segmentation")
    for size in ((1, 64, 64), (3, 96, 160)):
        images = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8)
        if form == "torch":
            logits = torch.export.load(io.BytesIO(data)).module()(images)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            logits = torch.from_numpy(session.run(None, {given["name"]: images.numpy()})[0])
        with torch.no_grad():
            torch.testing.assert_close(logits.detach(), network(images), rtol=1e-3, atol=1e-4)
        assert float(logits.std()) > 0


def test_network_that_came_out_otherwise_is_not_written(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_network, "exported", lambda *_: b"")
    monkeypatch.setattr(export_network, "greatest_difference", lambda *_: float("nan"))
    with pytest.raises(RuntimeError, match="logits differ from the original's by nan"):
        export_network.run(ExportNetwork(segmentation=folder, out=str(tmp_path / "out")))
    assert list((tmp_path / "out").iterdir()) == []


def test_mistakes_are_one_line(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^side_px must be 0 or a multiple of 32, 64 or more, got 65$"):
        ExportNetwork(segmentation=folder, side_px=65)
    monkeypatch.setattr("engine.export.network.importlib.import_module", _missing)
    with pytest.raises(ConfigError, match=r"^format onnx needs packages that are not installed"):
        export_network.run(ExportNetwork(segmentation=folder, out=str(tmp_path)))
    assert main(ExportNetwork, export_network.run, ["--segmentation", str(tmp_path / "none"), "--out", "o"]) == 2


def _missing(name: str) -> None:
    raise ImportError(name)
