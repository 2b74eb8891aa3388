"""What a search found, written, drawn and printed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from engine.config import CrfConfig, map_paths
from engine.errors import OutputError
from engine.plain_settings import parts_to_dict, with_part
from engine.storage.filesystem import join, write_bytes
from engine.storage.run_record import write_json
from tune.options import SearchOptions
from tune.plots import class_bars, heat_maps
from tune.results import Default, Scored, judged, on_edge, validated
from tune.seeds import ScoredSeed, print_seeds, seed_table
from tune.space import CRF_NUMBERS

RESULTS, BEST, HEAT_MAPS, CLASSES = "results.parquet", "best.json", "miou.svg", "classes.svg"
SEEDS = "seeds.parquet"
NUM_SHOWN = 10

SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),  # 1 is the best
        ("alpha", pa.float64()),
        ("beta", pa.float64()),
        ("num_steps", pa.int32()),
        ("cam_scales", pa.list_(pa.float64())),
        ("crf", pa.bool_()),  # with the dense CRF
        *[(f"crf_{name}", pa.float64()) for name in CRF_NUMBERS],  # null without
        ("miou", pa.float64()),  # [0, 1], over all pixels of all images
        ("miou_low", pa.float64()),  # ends of the 95 % interval; null when the configuration was stopped early
        ("miou_high", pa.float64()),
        ("tied_with_best", pa.bool_()),  # not distinguishable from the best
        ("default", pa.bool_()),  # what the search started from
        ("images", pa.int32()),
        ("complete", pa.bool_()),  # false: stopped early, miou is over `images` only
        ("iou", pa.list_(pa.float64())),  # background, then each class; NaN where there is none
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResults:
    """All that was scored."""

    plain: list[Scored]
    """Configurations without dCRF."""
    with_crf: list[Scored]
    short_lists: Sequence[Sequence[Scored]]
    """For each fold the configurations that were given the dCRF, chosen on the other folds."""
    seeds: list[ScoredSeed]
    """The best first; empty where none were asked for."""
    class_names: tuple[str, ...]
    num_images: int
    errors: dict[str, int]
    """Images with an error, by stage."""


def write_outcome(config: SearchOptions, found: SearchResults, default: Default) -> dict[str, Any]:
    """Write ``results.parquet``, ``best.json``, ``miou.svg``, ``classes.svg`` and with seeds ``seeds.parquet``.

    Args:
        default: what the search is compared with.

    Returns:
        What ``best.json`` holds.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = config.out
    ranked = judged([*found.with_crf, *found.plain], num_draws=config.bootstrap, rng_seed=config.rng_seed)
    with_crf, plain = [one for one in ranked if one.with_crf], [one for one in ranked if not one.with_crf]
    best = ranked[0]
    cross = validated(plain, num_folds=config.folds)
    allowed = [{one.walk for one in some} for some in found.short_lists]
    cross_crf = validated(with_crf, num_folds=config.folds, allowed=allowed)
    start, start_crf = (next((one for one in some if default.is_(one)), None) for some in (plain, with_crf))
    seed = next((one for one in found.seeds if one.scales == best.scales and one.enough), None)
    edges = on_edge(best, plain)
    summary = {
        "settings": _settings(default, best, seed),
        "miou": best.miou,
        "miou_interval": None if best.low is None else [best.low, best.high],
        "miou_cross_validated": cross,
        "miou_crf_cross_validated": cross_crf,
        "miou_default": None if start is None else start.miou,
        "miou_crf_default": None if start_crf is None else start_crf.miou,
        "crf": best.with_crf,
        "configurations": len(plain),
        "tied_with_best": sum(one.tied for one in ranked),
        "on_edge": edges,
        "images": found.num_images,
        "errors": found.errors,
        "rng_seed": config.rng_seed,
    }
    own_seed, scales = default.settings.seed, default.maps.inference.scales
    try:
        _write_table(join(folder, RESULTS), _table(ranked, default))
        write_bytes(join(folder, HEAT_MAPS), heat_maps(plain))
        beside = start_crf if best.with_crf else start
        write_bytes(join(folder, CLASSES), class_bars(best, beside, found.class_names))
        if found.seeds:
            _write_table(join(folder, SEEDS), seed_table(found.seeds, own_seed, scales))
    except OSError as error:
        raise OutputError(f"cannot be written: {error}", thing="out") from error
    write_json(join(folder, BEST), summary)
    _print_table(ranked, default, num_images=found.num_images)
    for name, edge in edges.items():
        print(f"the best {name} is the {edge} value tried: extend the search in this direction")
    if found.errors:
        by_stage = ", ".join(f"{stage}: {count}" for stage, count in found.errors.items())
        print(f"{sum(found.errors.values())} images ended in an error ({by_stage}); they count as all background")
    for name, value in (("without dCRF", cross), ("with dCRF", cross_crf)):
        if value is not None:
            print(f"cross-validated over {config.folds} folds, {name}: mIoU {100 * value:.2f} %")
    if found.seeds:
        print_seeds(found.seeds, own_seed, scales, coverage=config.seed_coverage)
    print(f"use it with: tag2mask label --config {join(folder, BEST)} ...")
    return summary


def _settings(default: Default, best: Scored, seed: ScoredSeed | None) -> dict[str, Any]:
    """The part of the settings tree in ``best.json``; besides AffinityNet's inference only what was searched."""
    inference_path, walk_path = map_paths(default.kind)
    inference, walk = default.maps.inference, default.maps.walk
    beta = best.beta if best.num_steps else walk.beta
    settings = with_part(default.settings, inference_path, replace(inference, scales=best.scales))
    walk = replace(walk, alpha=best.alpha, beta=beta, num_steps=best.num_steps)
    settings = with_part(settings, walk_path, walk)
    paths = [inference_path, walk_path, "affinity.inference"]
    if best.with_crf:
        settings = with_part(settings, "crf", best.crf)
        paths.append("crf")
    if seed is not None:
        low, high = seed.pair
        settings = with_part(settings, "seed", replace(settings.seed, alpha_low=low, alpha_high=high))
        paths.append("seed")
    return parts_to_dict(settings, paths)


def _table(ranked: Sequence[Scored], default: Default) -> pa.Table:
    """A row a configuration, the best first."""
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
    return pa.Table.from_pylist(rows, SCHEMA)


def _write_table(location: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(location, buffer.getvalue())


def _print_table(ranked: Sequence[Scored], default: Default, *, num_images: int) -> None:
    """The ten best and the default."""
    num_plain = sum(not one.with_crf for one in ranked)
    again = f", {len(ranked) - num_plain} with the dCRF" if len(ranked) > num_plain else ""
    title = f"mIoU over {num_images} images, {num_plain} configurations{again}"
    table = Table(title=title, title_justify="left")
    several = len({one.scales for one in ranked}) > 1
    names = ["rank", *(["scales"] if several else []), "alpha", "beta", "steps", "dCRF", "mIoU %", "95 % interval", ""]
    for name in names:
        table.add_column(name, justify="left" if name in ("dCRF", "") else "right")
    for rank, one in enumerate(ranked, start=1):
        is_default = default.is_(one)
        if rank > NUM_SHOWN and not is_default:
            continue
        notes = ["default"] if is_default else []
        notes += ["as good as the best"] if one.tied and rank > 1 else []
        notes += [] if one.complete else [f"stopped at {one.num_images} images"]
        table.add_row(
            str(rank),
            *([",".join(f"{scale:g}" for scale in one.scales)] if several else []),
            f"{one.alpha:g}",
            f"{one.beta:g}" if one.num_steps else "-",
            str(one.num_steps),
            _shown(one.crf, default.settings.crf),
            f"{100 * one.miou:.2f}",
            "" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            ", ".join(notes),
        )
    Console(width=100).print(table)


def _shown(crf: CrfConfig, usual: CrfConfig) -> str:
    if crf.num_iterations == 0:
        return "no"
    names = [name for name in CRF_NUMBERS if getattr(crf, name) != getattr(usual, name)]
    return " ".join(f"{name.replace('_', '-')} {getattr(crf, name):g}" for name in names) or "yes"
