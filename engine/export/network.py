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
from torch._dynamo.exc import UserError
from torch.export import Dim

from engine.errors import ConfigError

Format = Literal["onnx", "torch"]
FILES: dict[Format, str] = {"onnx": "network.onnx", "torch": "network.pt2"}
MULTIPLE_PX = 32
"""What height and width of images are multiples of: the stride of backbones."""
_MOST_PX, _MOST_IMAGES = 8192, 1024
"""Bounds that torch.export wants of sizes that may vary."""
TOLERANCE = 1e-3
"""Greatest difference of a logit that is the other program's rounding."""


def exported(network: nn.Module, form: Format, side_px: int) -> bytes:
    """The network as a file; it takes (B, 3, H, W) uint8 RGB and gives logits (B, C+1, H, W) float32.

    Args:
        network: in evaluation mode on the CPU.
        form: ``onnx``, or ``torch`` for ``torch.export``.
        side_px: H and W, and B is 1; 0 for any B, and any H and W that are multiples of :data:`MULTIPLE_PX`.

    Raises:
        ConfigError: the packages of the format are not installed, or the network takes one size only.
    """
    if form == "onnx":
        _need("onnxscript")
    size = (1, side_px, side_px) if side_px else (2, 2 * MULTIPLE_PX, 3 * MULTIPLE_PX)
    images = torch.zeros(size[0], 3, *size[1:], dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(network, (images,), dynamic_shapes=None if side_px else [_any_size()])
        except (UserError, RuntimeError, ValueError) as error:
            if side_px:
                raise
            raise ConfigError("must be given: this backbone takes images of one size only", thing="side_px") from error
        if form == "torch":
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
            return buffer.getvalue()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, FILES["onnx"])
            torch.onnx.export(
                program,
                (images,),
                path,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                optimize=False,  # runtimes do it when they load; onnxscript's takes minutes with sizes that vary
                verbose=False,
            )
            with open(path, "rb") as file:
                return file.read()


def _any_size() -> dict[int, Any]:
    sides = {axis: MULTIPLE_PX * Dim(name, min=2, max=_MOST_PX // MULTIPLE_PX) for axis, name in ((2, "h"), (3, "w"))}
    return {0: Dim("batch", min=1, max=_MOST_IMAGES), **sides}


def greatest_difference(network: nn.Module, form: Format, data: bytes, images: Tensor) -> float:
    """How far the logits of a file are from the network's own.

    Args:
        network: the original.
        data: what :func:`exported` gave.
        images: (B, 3, H, W) uint8 of a size that it was exported for.

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
