"""The segmentation network in a form that runs without this engine, and the proof that it is the same.

Letters: B batch, C classes, (H, W) pixels.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import ConfigError

Format = Literal["onnx", "torch"]
FILES: dict[Format, str] = {"onnx": "network.onnx", "torch": "network.pt2"}
TOLERANCE = 1e-3
"""Greatest difference of a logit that is the other program's rounding."""


def exported(network: nn.Module, form: Format, side_px: int) -> bytes:
    """The network as a file; it takes (1, 3, H, W) uint8 RGB of one size and gives logits (1, C+1, H, W) float32.

    Args:
        network: in evaluation mode on the CPU.
        form: ``onnx``, or ``torch`` for ``torch.export``.
        side_px: H and W.

    Raises:
        ConfigError: the packages of the format are not installed.
    """
    images = torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        if form == "torch":
            buffer = io.BytesIO()
            torch.export.save(torch.export.export(network, (images,)), buffer)
            return buffer.getvalue()
        _need("onnxscript")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, FILES["onnx"])
            torch.onnx.export(
                network,
                (images,),
                path,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
            with open(path, "rb") as file:
                return file.read()


def greatest_difference(network: nn.Module, form: Format, data: bytes, images: Tensor) -> float:
    """How far the logits of a file are from the network's own.

    Args:
        network: the original.
        data: what :func:`exported` gave.
        images: (1, 3, H, W) uint8 of the size that it was exported for.

    Raises:
        ConfigError: the packages of the format are not installed.
    """
    with torch.no_grad():
        expected: NDArray[np.float32] = network(images).numpy()
    return float(np.abs(_run(form, data, images) - expected).max())


def _run(form: Format, data: bytes, images: Tensor) -> NDArray[np.float32]:
    logits: NDArray[np.float32]
    if form == "torch":
        with _quiet(), torch.no_grad():
            logits = torch.export.load(io.BytesIO(data)).module()(images).numpy()
        return logits
    runtime: Any = _need("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": images.numpy()})[0]
    return logits


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            "onnx needs packages that are not installed (pip install onnx onnxscript onnxruntime); torch does not",
            thing="format",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' chatter, which no user can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
