"""The two alphas of the seeds, scored without training an AffinityNet: confident cells against the truth.

A seed says nothing about cells that are not confident, so its figures are over the pixels of its confident cells: their
mIoU and precision. A seed of a few confident cells would win at that and teach nothing, so a pair of alphas must also
be confident about a fraction of the truth's foreground and of its background.

Letters: R pairs of alphas, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from engine.config import SeedConfig
from engine.ops.seed_counts import SURE_TRUTH
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.ops.sweep_scores import bootstrap, intervals, miou, tied_with
from engine.stages.count import Scales
from tune.counts import Counted
from tune.options import SearchOptions

NUM_SHOWN = 10

SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),  # 1 is the best
        ("cam_scales", pa.list_(pa.float64())),
        ("alpha_low", pa.float64()),
        ("alpha_high", pa.float64()),
        ("miou", pa.float64()),  # [0, 1], over the pixels of confident cells
        ("miou_low", pa.float64()),  # ends of the 95 % interval
        ("miou_high", pa.float64()),
        ("tied_with_best", pa.bool_()),  # not distinguishable from the best
        ("precision", pa.float64()),  # share of the sure pixels whose class is right
        ("sure_foreground", pa.float64()),  # share of the truth's foreground that is sure
        ("sure_background", pa.float64()),
        ("enough", pa.bool_()),  # both shares reach seed_coverage; the others come last
        ("default", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSeed:
    """One pair of alphas; figures in [0, 1]."""

    scales: Scales
    pair: tuple[float, float]
    miou: float
    precision: float
    foreground: float
    """Fraction of the truth's foreground in confident cells."""
    background: float
    enough: bool
    """Whether both fractions are."""
    low: float | None = None
    high: float | None = None
    tied: bool = False


def score_seeds(
    counted: Counted,
    scale_sets: Sequence[Scales],
    pairs: Sequence[tuple[float, float]],
    config: SearchOptions,
) -> list[ScoredSeed]:
    """Every pair of alphas, the best first: those with enough coverage, then the others, each by mIoU.

    Args:
        counted: all pairs of the first set of scales first.
        config: ``seed_coverage``, ``bootstrap`` and ``rng_seed``.
    """
    names = [(scales, pair) for scales in scale_sets for pair in pairs]
    counts, truth = counted.counts, counted.truth.sum(axis=0)
    sums = counts.sum(axis=1)
    right, given = sums[:, INTERSECTION].sum(axis=-1), sums[:, PREDICTED].sum(axis=-1)
    foreground = sums[:, SURE_TRUTH, 1:].sum(axis=-1) / max(1, truth[1:].sum())
    background = sums[:, SURE_TRUTH, 0] / max(1, truth[0])
    values = np.nan_to_num(miou(counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH]))
    enough = (foreground >= config.seed_coverage) & (background >= config.seed_coverage)
    order = sorted(range(len(names)), key=lambda index: (not enough[index], -values[index], index))
    scored = [
        ScoredSeed(
            scales=names[index][0],
            pair=names[index][1],
            miou=float(values[index]),
            precision=float(right[index] / max(1, given[index])),
            foreground=float(foreground[index]),
            background=float(background[index]),
            enough=bool(enough[index]),
        )
        for index in order
    ]
    if config.bootstrap == 0:
        return scored
    counts = counts[order]
    masks, truths = counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH]
    drawn = bootstrap(masks, truths, num_draws=config.bootstrap, rng_seed=config.rng_seed)
    return [
        replace(one, low=float(low), high=float(high), tied=bool(tied) and one.enough)
        for one, (low, high), tied in zip(scored, intervals(drawn), tied_with(0, drawn), strict=True)
    ]


def seed_table(ranked: Sequence[ScoredSeed], default: SeedConfig, scales: Scales) -> pa.Table:
    """What ``seeds.parquet`` holds: a row a pair, the best first."""
    rows = [
        {
            "rank": rank,
            "cam_scales": list(one.scales),
            "alpha_low": one.pair[0],
            "alpha_high": one.pair[1],
            "miou": one.miou,
            "miou_low": one.low,
            "miou_high": one.high,
            "tied_with_best": one.tied,
            "precision": one.precision,
            "sure_foreground": one.foreground,
            "sure_background": one.background,
            "enough": one.enough,
            "default": _is_default(one, default, scales),
        }
        for rank, one in enumerate(ranked, start=1)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _is_default(one: ScoredSeed, default: SeedConfig, scales: Scales) -> bool:
    return one.scales == scales and one.pair == (default.alpha_low, default.alpha_high)


def print_seeds(ranked: Sequence[ScoredSeed], default: SeedConfig, scales: Scales, *, coverage: float) -> None:
    """The ten best and the default."""
    table = Table(
        title=f"Seeds: confident cells against the truth, {len(ranked)} pairs of alphas", title_justify="left"
    )
    for name in ("rank", "low", "high", "mIoU %", "95 % interval", "right %", "sure fg %", "sure bg %", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    for rank, one in enumerate(ranked, start=1):
        is_default = _is_default(one, default, scales)
        if rank > NUM_SHOWN and not is_default:
            continue
        notes = ["default"] if is_default else []
        notes += ["as good as the best"] if one.tied and rank > 1 else []
        notes += [] if one.enough else [f"confident about less than {100 * coverage:g} %"]
        table.add_row(
            str(rank),
            f"{one.pair[0]:g}",
            f"{one.pair[1]:g}",
            f"{100 * one.miou:.2f}",
            "" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            f"{100 * one.precision:.1f}",
            f"{100 * one.foreground:.0f}",
            f"{100 * one.background:.0f}",
            ", ".join(notes),
        )
    Console(width=110).print(table)
