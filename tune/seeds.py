"""The two alphas of the seeds, scored without training an AffinityNet: how the sure cells fare against the truth.

A seed says nothing of the cells that are not sure, so its figures are over the pixels of its sure cells: the mIoU, and
the share of them that is right. A seed of a few sure cells would win at that and teach nothing; so a pair of alphas
must also be sure of a share of the truth's foreground and of its background. What is sure, and how the dCRF makes it
so, is engine.stages.seed's; an image's dCRF has one lattice for all alphas.

Letters: R pairs of alphas, G groups of images, C classes, K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.config import SeedConfig
from engine.errors import StorageError
from engine.imaging.codecs import decode_map
from engine.imaging.decoding import decode_image
from engine.resources import PassConfig
from engine.stages.seed import MakeSeed
from engine.storage.filesystem import exists, join, read_bytes, write_bytes
from engine.storage.pictures import read_picture
from engine.storage.run_record import fingerprint
from tune.cache import group_of, read_maps
from tune.figures import MAX_GROUPS, bootstrap, intervals, miou, tied_with
from tune.results import write_table
from tune.space import Scales
from tune.sweep import INTERSECTION, PREDICTED
from tune.trial import Context

SURE_TRUTH = 2
"""Row of the counts after :data:`INTERSECTION` and :data:`PREDICTED`: truth of the pixels of sure cells, by class."""
NUM_SHOWN = 10

SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32()),  # 1 is the best
        pa.field("cam_scales", pa.list_(pa.float64())),
        pa.field("alpha_low", pa.float64()),
        pa.field("alpha_high", pa.float64()),
        pa.field("miou", pa.float64()),  # [0, 1], over the pixels of sure cells
        pa.field("miou_low", pa.float64()),  # ends of the 95 % interval
        pa.field("miou_high", pa.float64()),
        pa.field("tied_with_best", pa.bool_()),  # cannot be told apart from the best
        pa.field("precision", pa.float64()),  # share of the sure pixels whose class is right
        pa.field("sure_foreground", pa.float64()),  # share of the truth's foreground that is sure
        pa.field("sure_background", pa.float64()),
        pa.field("enough", pa.bool_()),  # both shares reach --seed-coverage; the others come last
        pa.field("default", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedPart:
    """What one trial counts: every pair of alphas on some of the images."""

    scales: Scales
    """Of the CAM."""
    shards: tuple[int, ...]
    """Of the cache."""
    pairs: tuple[tuple[float, float], ...]
    """alpha_low and alpha_high."""
    seed: SeedConfig
    """All but the alphas."""

    @property
    def name(self) -> str:
        """A file name that no other part has."""
        return f"seed-{self.shards[0]}-{fingerprint(asdict(self))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSeed:
    """One pair of alphas; figures are of [0, 1]."""

    scales: Scales
    pair: tuple[float, float]
    miou: float
    precision: float
    foreground: float
    """Share of the truth's foreground that is sure."""
    background: float
    enough: bool
    """Whether both shares are."""
    low: float | None = None
    high: float | None = None
    tied: bool = False


def pairs_of(lows: Sequence[float], highs: Sequence[float], seed: SeedConfig) -> tuple[tuple[float, float], ...]:
    """Every pair that makes sense, the default's among them."""
    pairs = {(low, high) for low, high in product(lows, highs) if low <= high}
    return tuple(sorted(pairs | {(seed.alpha_low, seed.alpha_high)}))


def seed_parts(
    context: Context, scale_sets: Sequence[Scales], pairs: tuple[tuple[float, float], ...], seed: SeedConfig
) -> list[SeedPart]:
    """The trials: each set of scales with each part of the images."""
    start = replace(seed, alpha_low=pairs[0][0], alpha_high=pairs[0][1])  # so that it names nothing that is not used
    return [
        SeedPart(scales=scales, shards=tuple(shards), pairs=pairs, seed=start)
        for scales in scale_sets
        for shards in context.parts()
    ]


def seeds_counted(context: Context, part: SeedPart) -> bool:
    """Whether an earlier run has counted this part."""
    return exists(_location(context, part))


def count_seeds(context: Context, part: SeedPart) -> None:
    """Count one part and keep the counts.

    Raises:
        StorageError: the cache or an image cannot be read, or truth and image differ in size.
    """
    torch.set_num_threads(1)
    num_classes = context.num_classes
    make = MakeSeed(part.seed, PassConfig(max_pixels=context.max_pixels), num_classes=num_classes)
    num_groups = min(MAX_GROUPS, context.manifest.num_rows)
    counts = np.zeros((len(part.pairs), num_groups, 3, num_classes + 1), dtype=np.int64)
    truth = np.zeros((num_groups, num_classes + 1), dtype=np.int64)
    groups = list(group_of(context.manifest, MAX_GROUPS))
    for shard in part.shards:
        for row, group in zip(read_maps(context.cams[part.scales], "", shard), groups[shard].tolist(), strict=True):
            true_mask = context.true_mask(row)
            valid = true_mask[true_mask != context.ignore]
            truth[group] += np.bincount(valid, minlength=num_classes + 1)
            if row["error"] is not None:
                continue  # it teaches nothing
            try:
                image = decode_image(read_picture(row["image"]), max_pixels=context.max_pixels)
            except OSError as error:
                raise StorageError(str(error)) from error
            seeds = make.seeds(torch.from_numpy(decode_map(row["cam"])), image, row["class_ids"], part.pairs)
            pixels = cell_pixels(true_mask, seeds[0].shape, num_classes=num_classes, ignore=context.ignore)
            for index, seed in enumerate(seeds):
                counts[index, group] += seed_counts(seed, pixels, ignore=context.ignore)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts, truth=truth)
    write_bytes(_location(context, part), buffer.getvalue())


def cell_pixels(
    truth: NDArray[np.integer[Any]], grid: tuple[int, ...], *, num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """How many pixels of each class lie in each cell: (h * w, C+1), a pixel in the cell that holds its centre."""
    rows, columns = (
        ((np.arange(size) + 0.5) * cells / size).astype(np.int64) for size, cells in zip(truth.shape, grid, strict=True)
    )
    cells = rows[:, None] * grid[1] + columns
    valid = truth != ignore
    size = num_classes + 1
    codes = cells[valid] * size + truth[valid]
    return np.bincount(codes, minlength=grid[0] * grid[1] * size).reshape(-1, size)


def seed_counts(seed: NDArray[np.integer[Any]], pixels: NDArray[np.int64], *, ignore: int) -> NDArray[np.int64]:
    """What the sure cells of a seed have in common with the truth.

    Args:
        seed: (h, w) ids or ``ignore``.
        pixels: (h * w, C+1) of :func:`cell_pixels`.

    Returns:
        (3, C+1) int64 pixels by :data:`INTERSECTION`, :data:`PREDICTED`, :data:`SURE_TRUTH` and class.
    """
    ids = seed.ravel()
    sure = np.flatnonzero(ids != ignore)
    counts = np.zeros((3, pixels.shape[1]), dtype=np.int64)
    chosen = ids[sure].astype(np.int64)
    np.add.at(counts[INTERSECTION], chosen, pixels[sure, chosen])
    np.add.at(counts[PREDICTED], chosen, pixels[sure].sum(axis=1))
    counts[SURE_TRUTH] = pixels[sure].sum(axis=0)
    return counts


def score_seeds(
    context: Context, parts: Sequence[SeedPart], *, coverage: float, num_draws: int, rng_seed: int
) -> list[ScoredSeed]:
    """Every pair of alphas, the best first: those that are sure of enough, then the others, each by mIoU.

    Args:
        coverage: least share of the truth's foreground, and of its background, that must be sure.
        num_draws: of the bootstrap; 0 leaves it out.
    """
    names: list[tuple[Scales, tuple[float, float]]] = []
    blocks: list[NDArray[np.int64]] = []
    for scales in dict.fromkeys(part.scales for part in parts):
        own = [_read(context, part) for part in parts if part.scales == scales]
        blocks.append(np.sum([counts for counts, _ in own], axis=0))
        truth = np.sum([one for _, one in own], axis=0).sum(axis=0)
        names += [(scales, pair) for part in parts[:1] for pair in part.pairs]
    counts = np.concatenate(blocks)
    sums = counts.sum(axis=1)
    right, given = sums[:, INTERSECTION].sum(axis=-1), sums[:, PREDICTED].sum(axis=-1)
    foreground = sums[:, SURE_TRUTH, 1:].sum(axis=-1) / max(1, truth[1:].sum())
    background = sums[:, SURE_TRUTH, 0] / max(1, truth[0])
    values = np.nan_to_num(miou(counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH]))
    enough = (foreground >= coverage) & (background >= coverage)
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
    if num_draws == 0:
        return scored
    counts = counts[order]
    drawn = bootstrap(counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH], num_draws=num_draws, rng_seed=rng_seed)
    return [
        replace(one, low=float(low), high=float(high), tied=bool(tied) and one.enough)
        for one, (low, high), tied in zip(scored, intervals(drawn), tied_with(0, drawn), strict=True)
    ]


def write_seeds(location: str, ranked: Sequence[ScoredSeed], default: SeedConfig, scales: Scales) -> None:
    """``seeds.parquet``: a row a pair, the best first.

    Raises:
        OSError: it cannot be written.
    """
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
    write_table(location, pa.Table.from_pylist(rows, SCHEMA))


def _is_default(one: ScoredSeed, default: SeedConfig, scales: Scales) -> bool:
    return one.scales == scales and one.pair == (default.alpha_low, default.alpha_high)


def print_seeds(ranked: Sequence[ScoredSeed], default: SeedConfig, scales: Scales, *, coverage: float) -> None:
    """The ten best and the default, on the screen."""
    table = Table(title=f"Seeds: sure cells against the truth, {len(ranked)} pairs of alphas", title_justify="left")
    for name in ("rank", "low", "high", "mIoU %", "95 % interval", "right %", "sure fg %", "sure bg %", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    for rank, one in enumerate(ranked, start=1):
        is_default = _is_default(one, default, scales)
        if rank > NUM_SHOWN and not is_default:
            continue
        notes = ["default"] if is_default else []
        notes += ["as good as the best"] if one.tied and rank > 1 else []
        notes += [] if one.enough else [f"sure of less than {100 * coverage:g} %"]
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


def _read(context: Context, part: SeedPart) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    with np.load(io.BytesIO(read_bytes(_location(context, part))), allow_pickle=False) as arrays:
        return arrays["counts"], arrays["truth"]


def _location(context: Context, part: SeedPart) -> str:
    return join(context.states, f"{part.name}.npz")
