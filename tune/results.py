"""From the counts of all trials to the figures of all configurations: table, Parquet, best.json.

Letters: R configurations, G groups of images, C classes.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.config import CrfConfig, InferenceConfig, MapKind, Settings, WalkConfig
from engine.storage.filesystem import write_bytes
from tune.figures import best_without_folds, bootstrap, class_iou, cross_validated, intervals, miou, tied_with
from tune.space import CRF_NUMBERS, NO_CRF, Scales, Slice
from tune.trial import Context, State, read_state

NUM_SHOWN = 10
Walk = tuple[Scales, float, float, int]
"""Scales, alpha, beta and number of steps; without a walk beta is 0, for it means nothing."""

SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32()),  # 1 is the best
        pa.field("alpha", pa.float64()),
        pa.field("beta", pa.float64()),
        pa.field("num_steps", pa.int32()),
        pa.field("cam_scales", pa.list_(pa.float64())),
        pa.field("crf", pa.bool_()),  # with the dense CRF
        *[pa.field(f"crf_{name}", pa.float64()) for name in CRF_NUMBERS],  # its constants; null without
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
    scales: Scales
    crf: CrfConfig
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
    def with_crf(self) -> bool:
        """Whether there is a dense CRF at all."""
        return self.crf.num_iterations > 0

    @property
    def walk(self) -> Walk:
        """All that makes the masks but the dCRF."""
        return self.scales, self.alpha, self.beta if self.num_steps else 0.0, self.num_steps

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C+1,) of each class, background first."""
        return class_iou(self.counts.sum(axis=0), self.truth.sum(axis=0))


def collect(context: Context, slices: Sequence[Slice]) -> list[Scored]:
    """Every configuration that a trial has counted, the best first, each once."""
    found: dict[tuple[Walk, CrfConfig], Scored] = {}
    for part in slices:
        state = read_state(context, part)
        if not state.history:
            continue
        for scored in _scored(context, part, state):
            earlier = found.get((scored.walk, scored.crf))
            if earlier is None or earlier.num_images < scored.num_images:
                found[(scored.walk, scored.crf)] = scored
    return sorted(found.values(), key=lambda one: (one.complete, one.miou), reverse=True)


def _scored(context: Context, part: Slice, state: State) -> list[Scored]:
    names = [(num_steps, alpha) for num_steps in part.steps for alpha in part.alphas]
    values = miou(state.counts, state.truth)
    return [
        Scored(
            alpha=alpha,
            beta=part.beta,
            num_steps=num_steps,
            scales=part.scales,
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


def validated(scored: Sequence[Scored], *, num_folds: int, allowed: Sequence[Collection[Walk]] = ()) -> float | None:
    """The cross-validated mIoU of a search over these; None without folds, or with fewer images than folds.

    Args:
        allowed: for each fold what it may choose from; all without it.
    """
    complete = [one for one in scored if one.complete]
    if not _can_fold(complete, num_folds):
        return None
    candidates = np.array([[one.walk in some for one in complete] for some in allowed]) if allowed else None
    if candidates is not None and not candidates.any(axis=1).all():
        return None
    counts = np.stack([one.counts for one in complete])
    return cross_validated(counts, complete[0].truth, num_folds=num_folds, candidates=candidates)


def short_lists(ranked: Sequence[Scored], *, most: int, num_folds: int) -> list[list[Scored]]:
    """The best few on all images; then, for each fold, the best few on the other folds.

    Args:
        ranked: of :func:`collect`.
        most: length of a list.
        num_folds: 0 or too many gives the first list alone.
    """
    complete = [one for one in ranked if one.complete]
    lists = [complete[:most]]
    if _can_fold(complete, num_folds):
        counts = np.stack([one.counts for one in complete])
        chosen = best_without_folds(counts, complete[0].truth, num_folds=num_folds, most=most)
        lists += [[one for one, takes in zip(complete, row, strict=True) if takes] for row in chosen]
    return lists


def _can_fold(complete: Sequence[Scored], num_folds: int) -> bool:
    return num_folds >= 2 and bool(complete) and len(complete[0].truth) >= num_folds


@dataclass(frozen=True, kw_only=True, slots=True)
class Default:
    """The settings that the search starts from, for the kind of network that --cam is."""

    settings: Settings
    kind: MapKind

    @property
    def inference(self) -> InferenceConfig:
        """How its maps are taken."""
        return self.settings.maps_of(self.kind).inference

    @property
    def walk(self) -> WalkConfig:
        """How they are walked."""
        return self.settings.maps_of(self.kind).walk

    @property
    def crf(self) -> CrfConfig:
        """The dCRF of the masks."""
        return self.settings.crf

    @property
    def scales(self) -> Scales:
        """How large its maps are taken."""
        return self.inference.scales

    def is_(self, one: Scored) -> bool:
        """Whether a configuration has these settings, with the dCRF or without."""
        beta = self.walk.beta if self.walk.num_steps else 0.0
        own = self.scales, self.walk.alpha, beta, self.walk.num_steps
        return one.walk == own and one.crf in (NO_CRF, self.crf)


def write_results(location: str, ranked: Sequence[Scored], default: Default) -> None:
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
            "cam_scales": list(one.scales),
            "crf": one.with_crf,
            **{f"crf_{name}": float(getattr(one.crf, name)) if one.with_crf else None for name in CRF_NUMBERS},
            "miou": one.miou,
            "miou_low": one.low,
            "miou_high": one.high,
            "tied_with_best": one.tied,
            "default": default.is_(one),
            "images": one.num_images,
            "complete": one.complete,
            "iou": one.iou.tolist(),
        }
        for rank, one in enumerate(ranked, start=1)
    ]
    write_table(location, pa.Table.from_pylist(rows, SCHEMA))


def write_table(location: str, table: pa.Table) -> None:
    """A Parquet file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(location, buffer.getvalue())


def print_table(ranked: Sequence[Scored], default: Default, *, num_images: int) -> None:
    """The ten best and the default, on the screen."""
    table = Table(title=f"mIoU over {num_images} images, {len(ranked)} configurations", title_justify="left")
    several = len({one.scales for one in ranked}) > 1
    for name in (
        "rank",
        *(["scales"] if several else []),
        "alpha",
        "beta",
        "steps",
        "dCRF",
        "mIoU %",
        "95 % interval",
        "",
    ):
        table.add_column(name, justify="left" if name in ("dCRF", "") else "right")
    for rank, one in enumerate(ranked, start=1):
        is_default = default.is_(one)
        if rank > NUM_SHOWN and not is_default:
            continue
        interval = "" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f}"
        notes = ["default"] if is_default else []
        notes += ["as good as the best"] if one.tied and rank > 1 else []
        notes += [] if one.complete else [f"stopped at {one.num_images} images"]
        table.add_row(
            str(rank),
            *([",".join(f"{scale:g}" for scale in one.scales)] if several else []),
            f"{one.alpha:g}",
            f"{one.beta:g}" if one.num_steps else "-",
            str(one.num_steps),
            _shown(one.crf, default.crf),
            f"{100 * one.miou:.2f}",
            interval,
            ", ".join(notes),
        )
    Console(width=100).print(table)


def _shown(crf: CrfConfig, usual: CrfConfig) -> str:
    if crf.num_iterations == 0:
        return "no"
    names = [name for name in CRF_NUMBERS if getattr(crf, name) != getattr(usual, name)]
    return " ".join(f"{name.replace('_', '-')} {getattr(crf, name):g}" for name in names) or "yes"
