"""Write, plot and print the results of a search."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from engine.config import CrfConfig, MapKind, Settings, map_paths
from engine.errors import OutputError
from engine.plain_settings import parts_to_dict, with_part
from engine.storage.filesystem import join, write_bytes
from engine.storage.run_record import write_json
from tune.options import SearchOptions
from tune.plots import class_bars, heat_maps
from tune.results import Item, Ranked, Scored, judged, of_complete, on_edge, validated
from tune.seeds import ScoredSeed
from tune.space import CRF_NUMBERS

RESULTS, BEST, HEAT_MAPS, CLASSES = "results.parquet", "best.json", "miou.svg", "classes.svg"
SEEDS = "seeds.parquet"
NUM_SHOWN = 10

Columns = dict[str, tuple[pa.DataType, Callable[[Any], Any]]]
"""Type and value of each column of a table."""
_RANKED: Columns = {
    "cam_scales": (pa.list_(pa.float64()), lambda one: list(one.scales)),
    "miou": (pa.float64(), attrgetter("miou")),  # [0, 1]
    "miou_low": (pa.float64(), attrgetter("low")),  # ends of the 95 % interval; null if stopped early
    "miou_high": (pa.float64(), attrgetter("high")),
    "tied_with_best": (pa.bool_(), attrgetter("tied")),  # not distinguishable from the best
    "default": (pa.bool_(), attrgetter("is_default")),  # the settings before the search
}


def _crf_number(name: str) -> tuple[pa.DataType, Callable[[Scored], float | None]]:
    return pa.float64(), lambda one: float(getattr(one.crf, name)) if one.with_crf else None


_RESULTS: Columns = {
    **_RANKED,  # miou over all pixels of all images
    "alpha": (pa.float64(), attrgetter("alpha")),
    "beta": (pa.float64(), attrgetter("beta")),
    "num_steps": (pa.int32(), attrgetter("num_steps")),
    "crf": (pa.bool_(), attrgetter("with_crf")),
    **{f"crf_{name}": _crf_number(name) for name in CRF_NUMBERS},
    "images": (pa.int32(), attrgetter("num_images")),
    "complete": (pa.bool_(), attrgetter("complete")),  # false: stopped early, miou is over `images` only
    "iou": (pa.list_(pa.float64()), lambda one: one.iou.tolist()),  # background, then each class; NaN if absent
}
_SEEDS: Columns = {
    **_RANKED,  # miou over the pixels of confident cells
    **{
        name: (pa.float64(), attrgetter(name))
        for name in ("alpha_low", "alpha_high", "precision", "sure_foreground", "sure_background")
    },
    "enough": (pa.bool_(), attrgetter("enough")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResults:
    """Everything that a search scored."""

    plain: list[Scored]
    """Configurations without dCRF."""
    with_crf: list[Scored]
    short_lists: Sequence[Sequence[Scored]]
    """For each fold, the configurations chosen on the other folds to be scored with the dCRF."""
    seeds: list[ScoredSeed]
    """Best first; empty unless the seeds were searched."""
    class_names: tuple[str, ...]
    num_images: int
    errors: dict[str, int]
    """Number of images with an error, by stage."""


def write_outcome(config: SearchOptions, found: SearchResults, kind: MapKind) -> dict[str, Any]:
    """Write ``results.parquet``, ``best.json``, ``miou.svg``, ``classes.svg`` and, with seeds, ``seeds.parquet``.

    Args:
        kind: The kind of network that gives the maps.

    Returns:
        The content of ``best.json``.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder, everything = config.out, [*found.with_crf, *found.plain]
    complete, counts, truth = of_complete(everything)
    ranked = judged(complete, counts, truth, num_draws=config.bootstrap, rng_seed=config.rng_seed)
    ranked += [one for one in everything if not one.complete]
    with_crf, plain = [one for one in ranked if one.with_crf], [one for one in ranked if not one.with_crf]
    best = ranked[0]
    cross = validated(plain, num_folds=config.folds)
    allowed = [{one.walk for one in some} for some in found.short_lists]
    cross_crf = validated(with_crf, num_folds=config.folds, allowed=allowed)
    start, start_crf = (next((one for one in some if one.is_default), None) for some in (plain, with_crf))
    seed = next((one for one in found.seeds if one.scales == best.scales and one.enough), None)
    edges = on_edge(best, plain)
    summary = {
        "settings": _settings(config.settings, kind, best, seed),
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
    try:
        _write_table(join(folder, RESULTS), ranked, _RESULTS)
        write_bytes(join(folder, HEAT_MAPS), heat_maps(plain))
        write_bytes(join(folder, CLASSES), class_bars(best, start_crf if best.with_crf else start, found.class_names))
        if found.seeds:
            _write_table(join(folder, SEEDS), found.seeds, _SEEDS)
    except OSError as error:
        raise OutputError(f"cannot be written: {error}", thing="out") from error
    write_json(join(folder, BEST), summary)
    _print_results(ranked, config.settings.crf, num_images=found.num_images)
    for name, edge in edges.items():
        print(f"the best {name} is the {edge} value tried: extend the search in that direction")
    if found.errors:
        by_stage = ", ".join(f"{stage}: {count}" for stage, count in found.errors.items())
        print(f"{sum(found.errors.values())} images ended in an error ({by_stage}); they count as all background")
    for name, value in (("without dCRF", cross), ("with dCRF", cross_crf)):
        if value is not None:
            print(f"cross-validated over {config.folds} folds, {name}: mIoU {100 * value:.2f} %")
    if found.seeds:
        _print_seeds(found.seeds, coverage=config.seed_coverage)
    print(f"to use the best settings: tag2mask label --config {join(folder, BEST)} ...")
    return summary


def _settings(settings: Settings, kind: MapKind, best: Scored, seed: ScoredSeed | None) -> dict[str, Any]:
    """Build the settings for ``best.json``: the searched parts, and AffinityNet's inference settings."""
    inference_path, walk_path = map_paths(kind)
    maps = settings.maps_of(kind)
    beta = best.beta if best.num_steps else maps.walk.beta
    settings = with_part(settings, inference_path, replace(maps.inference, scales=best.scales))
    walk = replace(maps.walk, alpha=best.alpha, beta=beta, num_steps=best.num_steps)
    settings = with_part(settings, walk_path, walk)
    paths = [inference_path, walk_path, "affinity.inference"]
    if best.with_crf:
        settings = with_part(settings, "crf", best.crf)
        paths.append("crf")
    if seed is not None:
        own = replace(settings.seed, alpha_low=seed.alpha_low, alpha_high=seed.alpha_high)
        settings = with_part(settings, "seed", own)
        paths.append("seed")
    return parts_to_dict(settings, paths)


def _write_table(location: str, ranked: Sequence[Ranked], columns: Columns) -> None:
    """Write one row per configuration, best first."""
    found = {name: pa.array([value(one) for one in ranked], kind) for name, (kind, value) in columns.items()}
    rank = pa.array(range(1, len(ranked) + 1), pa.int32())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"rank": rank, **found}), buffer, compression="zstd")
    write_bytes(location, buffer.getvalue())


def _print_table(
    title: str, ranked: Sequence[Item], columns: Mapping[str, Callable[[Item], str]], note: Callable[[Item], str]
) -> None:
    """Print the ten best and the default."""
    if len({one.scales for one in ranked}) > 1:
        columns = {"scales": lambda one: ",".join(f"{scale:g}" for scale in one.scales), **columns}
    table = Table(title=title, title_justify="left")
    for name in ("rank", *columns, "mIoU %", "95 % interval", ""):
        table.add_column(name, justify="left" if name in ("dCRF", "") else "right")
    for rank, one in enumerate(ranked, start=1):
        if rank > NUM_SHOWN and not one.is_default:
            continue
        notes = ["default" * one.is_default, "tied with the best" * (one.tied and rank > 1), note(one)]
        table.add_row(
            str(rank),
            *(show(one) for show in columns.values()),
            f"{100 * one.miou:.2f}",
            "" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            ", ".join(filter(None, notes)),
        )
    Console(width=110).print(table)


def _print_results(ranked: Sequence[Scored], usual: CrfConfig, *, num_images: int) -> None:
    def crf(one: Scored) -> str:
        names = [name for name in CRF_NUMBERS if getattr(one.crf, name) != getattr(usual, name)]
        other = " ".join(f"{name.replace('_', '-')} {getattr(one.crf, name):g}" for name in names)
        return (other or "yes") if one.with_crf else "no"

    columns: dict[str, Callable[[Scored], str]] = {
        "alpha": lambda one: f"{one.alpha:g}",
        "beta": lambda one: f"{one.beta:g}" if one.num_steps else "-",
        "steps": lambda one: str(one.num_steps),
        "dCRF": crf,
    }
    num_crf = sum(one.with_crf for one in ranked)
    title = f"mIoU over {num_images} images, {len(ranked) - num_crf} configurations"
    title += f", {num_crf} with the dCRF" if num_crf else ""
    _print_table(title, ranked, columns, lambda one: "" if one.complete else f"stopped at {one.num_images} images")


def _print_seeds(ranked: Sequence[ScoredSeed], *, coverage: float) -> None:
    columns: dict[str, Callable[[ScoredSeed], str]] = {
        "low": lambda one: f"{one.alpha_low:g}",
        "high": lambda one: f"{one.alpha_high:g}",
        "precision %": lambda one: f"{100 * one.precision:.1f}",
        "fg covered %": lambda one: f"{100 * one.sure_foreground:.0f}",
        "bg covered %": lambda one: f"{100 * one.sure_background:.0f}",
    }
    title = f"Seeds: confident cells against the truth, {len(ranked)} pairs of alphas"
    too_few = f"covers less than {100 * coverage:g} %"
    _print_table(title, ranked, columns, lambda one: "" if one.enough else too_few)
