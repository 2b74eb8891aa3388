"""From the counts of all trials to the figures of all configurations: table, Parquet, best.json.

Letters: R configurations, G groups of images, C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.config import WalkConfig
from engine.storage.filesystem import write_bytes
from tune.figures import bootstrap, class_iou, cross_validated, intervals, miou, tied_with
from tune.space import Slice
from tune.trial import Context, State, read_state

NUM_SHOWN = 10

SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32()),  # 1 is the best
        pa.field("alpha", pa.float64()),
        pa.field("beta", pa.float64()),
        pa.field("num_steps", pa.int32()),
        pa.field("crf", pa.bool_()),  # with the dense CRF
        pa.field("miou", pa.float64()),  # [0, 1], over all pixels of all images
        pa.field("miou_low", pa.float64()),  # ends of the 95 % interval; null when the configuration was stopped
        pa.field("miou_high", pa.float64()),
        pa.field("tied_with_best", pa.bool_()),  # cannot be told apart from the best
        pa.field("default", pa.bool_()),  # what the search started from
        pa.field("images", pa.int32()),
        pa.field("complete", pa.bool_()),  # false: stopped early, miou is over `images` only
        pa.field("iou", pa.list_(pa.float64())),  # background, then each class; NaN where there is none
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One configuration with its counts."""

    alpha: float
    beta: float
    num_steps: int
    crf: bool
    miou: float
    num_images: int
    complete: bool
    counts: NDArray[np.int64]
    """(G, 2, C+1)."""
    truth: NDArray[np.int64]
    """(G, C+1)."""
    low: float | None = None
    high: float | None = None
    tied: bool = False

    @property
    def key(self) -> tuple[float, float, int]:
        """alpha, beta, steps; without a walk beta means nothing."""
        return self.alpha, self.beta if self.num_steps else 0.0, self.num_steps

    def is_of(self, walk: WalkConfig) -> bool:
        """Whether these are the settings of ``walk``."""
        return (
            self.num_steps == walk.num_steps
            and self.alpha == walk.alpha
            and (self.num_steps == 0 or self.beta == walk.beta)
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C+1,) of each class, background first."""
        return class_iou(self.counts.sum(axis=0), self.truth.sum(axis=0))


def collect(context: Context, slices: Sequence[Slice]) -> list[Scored]:
    """Every configuration that a trial has counted, the best first, each once."""
    found: dict[tuple[Any, ...], Scored] = {}
    for part in slices:
        state = read_state(context, part)
        if not state.history:
            continue
        for scored in _scored(context, part, state):
            earlier = found.get((*scored.key, scored.crf))
            if earlier is None or earlier.num_images < scored.num_images:
                found[(*scored.key, scored.crf)] = scored
    return sorted(found.values(), key=lambda one: (one.complete, one.miou), reverse=True)


def _scored(context: Context, part: Slice, state: State) -> list[Scored]:
    names = [(num_steps, alpha) for num_steps in part.steps for alpha in part.alphas]
    values = miou(state.counts, state.truth)
    return [
        Scored(
            alpha=alpha,
            beta=part.beta,
            num_steps=num_steps,
            crf=part.crf,
            miou=float(value),
            num_images=state.num_images,
            complete=state.num_images == context.manifest.num_rows,
            counts=state.counts[index],
            truth=state.truth,
        )
        for index, ((num_steps, alpha), value) in enumerate(zip(names, values, strict=True))
    ]


def judged(ranked: Sequence[Scored], *, num_draws: int, rng_seed: int) -> list[Scored]:
    """The same with interval and mark; those that were stopped early have neither.

    Args:
        ranked: of :func:`collect`.
        num_draws: of the bootstrap; 0 leaves it out.
    """
    complete = [one for one in ranked if one.complete]
    if not complete or num_draws == 0:
        return list(ranked)
    drawn = bootstrap(
        np.stack([one.counts for one in complete]), complete[0].truth, num_draws=num_draws, rng_seed=rng_seed
    )
    ends, tied = intervals(drawn), tied_with(0, drawn)
    marked = [
        replace(one, low=float(low), high=float(high), tied=bool(same))
        for one, (low, high), same in zip(complete, ends, tied, strict=True)
    ]
    return marked + [one for one in ranked if not one.complete]


def validated(scored: Sequence[Scored], *, num_folds: int) -> float | None:
    """The cross-validated mIoU of a search over these; None without folds, or with fewer images than folds."""
    complete = [one for one in scored if one.complete]
    if num_folds < 2 or not complete or len(complete[0].truth) < num_folds:
        return None
    return cross_validated(np.stack([one.counts for one in complete]), complete[0].truth, num_folds=num_folds)


def write_results(location: str, ranked: Sequence[Scored], default: WalkConfig) -> None:
    """``results.parquet``: a row a configuration, the best first.

    Raises:
        OSError: it cannot be written.
    """
    rows = [
        {
            "rank": rank,
            "alpha": one.alpha,
            "beta": one.beta,
            "num_steps": one.num_steps,
            "crf": one.crf,
            "miou": one.miou,
            "miou_low": one.low,
            "miou_high": one.high,
            "tied_with_best": one.tied,
            "default": one.is_of(default),
            "images": one.num_images,
            "complete": one.complete,
            "iou": one.iou.tolist(),
        }
        for rank, one in enumerate(ranked, start=1)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer, compression="zstd")
    write_bytes(location, buffer.getvalue())


def print_table(ranked: Sequence[Scored], default: WalkConfig, *, num_images: int) -> None:
    """The ten best and the default, on the screen."""
    table = Table(title=f"mIoU over {num_images} images, {len(ranked)} configurations", title_justify="left")
    for name in ("rank", "alpha", "beta", "steps", "dCRF", "mIoU %", "95 % interval", ""):
        table.add_column(name, justify="left" if name in ("dCRF", "") else "right")
    for rank, one in enumerate(ranked, start=1):
        is_default = one.is_of(default)
        if rank > NUM_SHOWN and not is_default:
            continue
        interval = "" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f}"
        notes = ["default"] if is_default else []
        notes += ["as good as the best"] if one.tied and rank > 1 else []
        notes += [] if one.complete else [f"stopped at {one.num_images} images"]
        table.add_row(
            str(rank),
            f"{one.alpha:g}",
            f"{one.beta:g}" if one.num_steps else "-",
            str(one.num_steps),
            "yes" if one.crf else "no",
            f"{100 * one.miou:.2f}",
            interval,
            ", ".join(notes),
        )
    Console(width=100).print(table)
