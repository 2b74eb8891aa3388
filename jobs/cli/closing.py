"""The summary printed at the end of a job: images, errors, output and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.display import duration


@dataclass(frozen=True, kw_only=True, slots=True)
class _Closing:
    """The closing lines of one job; ``{out}`` and ``{data}`` stand for its options."""

    made: tuple[tuple[str, str], ...]
    """Pairs (description, location) of its outputs."""
    then: str
    """The next command."""


_NETWORK = ("network", "{out}")
_CLOSINGS = {
    "inspect": _Closing(made=(("inspection", "{out}/inspection.json"),), then="tag2mask run --data {data} --out RUN"),
    "train_cam": _Closing(made=(_NETWORK,), then="tag2mask make-seeds --data {data} --cam {out} --out SEEDS"),
    "make_seeds": _Closing(
        made=(("seeds", "{out}"),), then="tag2mask train-affinity --data {data} --seeds {out} --out AFFINITY"
    ),
    "train_affinity": _Closing(
        made=(_NETWORK,), then="tag2mask label --data {data} --cam CAM --affinity {out} --out MASKS"
    ),
    "label": _Closing(made=(("masks", "{out}"),), then="tag2mask report --data {data} --masks {out}"),
    "train_segmentation": _Closing(
        made=(_NETWORK,), then="tag2mask segment --data {data} --segmentation {out} --out MASKS"
    ),
    "segment": _Closing(made=(("masks", "{out}"),), then="tag2mask report --data {data} --masks {out}"),
    "run": _Closing(
        made=(("masks", "{out}/masks"), ("network", "{out}/segmentation"), ("report", "{out}/report.html")),
        then="tag2mask export --data {data} --masks {out}/masks --format voc --out EXPORTED",
    ),
}
"""The jobs that produce input for other jobs; the rest print their own results."""


def print_closing(job: str, options: Any, summary: Mapping[str, Any], seconds: float) -> None:
    """Print the closing lines of a job, if it has any."""
    closing = _CLOSINGS.get(job)
    if closing is None or "images" not in summary:
        return
    errors: Mapping[str, int] = summary.get("errors", {})
    by_stage = ", ".join(f"{stage}: {count}" for stage, count in errors.items())
    failed = f", {sum(errors.values())} with an error ({by_stage})" if errors else ""
    print(f"done in {duration(seconds)}: {summary['images']} images{failed}")
    for what, where in closing.made:
        print(f"{what}: {where.format(out=options.out.rstrip('/'))}")
    words = (word.format(out=options.out.rstrip("/"), data=options.data) for word in closing.then.split())
    print(f"next: {shlex.join(words)}")
