"""Isolate failures: an image that makes a stage fail becomes an error row and does not stop the others."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from engine.errors import StoreUnavailableError
from engine.records import Batch

_BROKEN = re.compile(r"CUDA error|CUDNN_STATUS_EXECUTION_FAILED|CUBLAS_STATUS_EXECUTION_FAILED")
"""Errors after which every further CUDA call of the process fails; running out of GPU memory is none of them."""
_STAGE_COLUMNS = ("encoded", "height", "width", "cam", "refined_cam")


class BrokenProcessError(RuntimeError):
    """This process cannot continue; a new process may."""


def guarded(name: str, stage: Callable[[Batch], Batch], batch: Batch) -> Batch:
    """Run a stage on a batch; a row that makes it fail becomes an error row, without affecting other rows.

    Args:
        name: name of the stage, for the error column.
        batch: with a column ``error``.

    Raises:
        StoreUnavailableError: raised by the stage; no row is the cause.
        BrokenProcessError: the GPU no longer works in this process.
    """
    try:
        return stage(batch)
    except (StoreUnavailableError, BrokenProcessError):
        raise
    except Exception as error:  # any error may be caused by a single row: find it
        if isinstance(error, RuntimeError) and _BROKEN.search(str(error)):
            raise BrokenProcessError(str(error)) from error
        if len(batch["error"]) == 1 and batch["error"][0] is not None:
            raise  # the row is not the cause: it already carried an error
        reason = " ".join(str(error).split()) or type(error).__name__
    # outside the except block: while the error is referenced, its traceback keeps the tensors of the failed pass alive
    if "torch" in sys.modules:  # processes that only read and write start seconds faster without it
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(batch["error"]) > 1:
        singles = [
            guarded(name, stage, {column: values[row : row + 1] for column, values in batch.items()})
            for row in range(len(batch["error"]))
        ]
        return {column: [one[column][0] for one in singles] for column in singles[0]}
    empty = {column: [None] for column in _STAGE_COLUMNS if column in batch}
    return stage({**batch, **empty, "error": [f"{name}: {reason}"]})
