"""What keeps one image from stopping the others."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from engine.errors import StoreUnavailableError
from engine.records import Batch

_BROKEN = re.compile(r"CUDA error|CUDNN_STATUS_EXECUTION_FAILED|CUBLAS_STATUS_EXECUTION_FAILED")
"""After these a process gets the same answer for every image; a GPU out of memory says something else."""
_MADE = ("encoded", "height", "width", "cam", "refined_cam")


class BrokenProcessError(RuntimeError):
    """This process can do no work any more; another may."""


def guarded(name: str, stage: Callable[[Batch], Batch], batch: Batch) -> Batch:
    """A stage's result, where a row that makes it fail becomes an error row and costs no other.

    Args:
        name: of the stage, for the error column.
        batch: with a column ``error``.

    Raises:
        StoreUnavailableError: from the stage; no row is to blame.
        BrokenProcessError: the GPU does not answer this process any more.
    """
    try:
        return stage(batch)
    except (StoreUnavailableError, BrokenProcessError):
        raise
    except Exception as error:  # whatever it is, it is one row's: find which
        if isinstance(error, RuntimeError) and _BROKEN.search(str(error)):
            raise BrokenProcessError(str(error)) from error
        if len(batch["error"]) == 1 and batch["error"][0] is not None:
            raise  # not the row's fault: it carried an error already
        reason = " ".join(str(error).split()) or type(error).__name__
    # outside of the block: as long as the error is known, its traceback holds the tensors of the pass that failed
    if "torch" in sys.modules:  # processes that only read and write start seconds sooner without it
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(batch["error"]) > 1:
        singles = [
            guarded(name, stage, {column: values[row : row + 1] for column, values in batch.items()})
            for row in range(len(batch["error"]))
        ]
        return {column: [one[column][0] for one in singles] for column in singles[0]}
    empty = {column: [None] for column in _MADE if column in batch}
    return stage({**batch, **empty, "error": [f"{name}: {reason}"]})
