"""What a search found: ranked, cross-validated, written, drawn and printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.config import map_paths
from engine.errors import OutputError
from engine.plain_settings import parts_to_dict, with_part
from engine.storage.filesystem import join, write_bytes
from engine.storage.run_record import write_json
from tune.plots import class_bars, heat_maps
from tune.results import Default, Scored, judged, print_table, validated, write_results
from tune.seeds import ScoredSeed, print_seeds, write_seeds

RESULTS, BEST, HEAT_MAPS, CLASSES = "results.parquet", "best.json", "miou.svg", "classes.svg"
SEEDS = "seeds.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResults:
    """All that was scored."""

    plain: list[Scored]
    """Configurations without dCRF."""
    with_crf: list[Scored]
    short_lists: Sequence[Sequence[Scored]]
    """Of each fold the configurations that were given the dCRF, chosen on the other folds."""
    seeds: list[ScoredSeed]
    """The best first; empty where none were asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judging:
    """How sure the figures are said to be."""

    num_folds: int
    """Of the cross-validated figure; 0 leaves it out."""
    num_draws: int
    """For the confidence intervals; 0 leaves them out."""
    rng_seed: int
    seed_coverage: float
    """What a seed must be sure of, a fraction of 1."""


def write_outcome(
    folder: str,
    found: SearchResults,
    default: Default,
    judging: Judging,
    *,
    class_names: tuple[str, ...],
    num_images: int,
    errors: dict[str, int],
) -> dict[str, Any]:
    """Write ``results.parquet``, ``best.json``, ``miou.svg``, ``classes.svg`` and with seeds ``seeds.parquet``.

    Args:
        folder: path or URI.
        default: what the search is compared with.
        errors: images that a network could not see, by stage.

    Returns:
        What ``best.json`` holds.

    Raises:
        OutputError: the folder cannot be written.
    """
    ranked = judged([*found.with_crf, *found.plain], num_draws=judging.num_draws, rng_seed=judging.rng_seed)
    with_crf, plain = [one for one in ranked if one.with_crf], [one for one in ranked if not one.with_crf]
    best = ranked[0]
    cross = validated(plain, num_folds=judging.num_folds)
    allowed = [{one.walk for one in some} for some in found.short_lists]
    cross_crf = validated(with_crf, num_folds=judging.num_folds, allowed=allowed)
    start, start_crf = (next((one for one in some if default.is_(one)), None) for some in (plain, with_crf))
    own_seeds = [one for one in found.seeds if one.scales == best.scales and one.enough]
    summary = {
        "settings": _settings(default, best, own_seeds[0] if own_seeds else None),
        "miou": best.miou,
        "miou_interval": None if best.low is None else [best.low, best.high],
        "miou_cross_validated": cross,
        "miou_crf_cross_validated": cross_crf,
        "miou_default": None if start is None else start.miou,
        "miou_crf_default": None if start_crf is None else start_crf.miou,
        "crf": best.with_crf,
        "configurations": len(plain),
        "tied_with_best": sum(one.tied for one in ranked),
        "images": num_images,
        "errors": errors,
        "rng_seed": judging.rng_seed,
    }
    try:
        write_results(join(folder, RESULTS), ranked, default)
        write_bytes(join(folder, HEAT_MAPS), heat_maps(plain).encode())
        beside = start_crf if best.with_crf else start
        write_bytes(join(folder, CLASSES), class_bars(best, beside, class_names).encode())
        if found.seeds:
            write_seeds(join(folder, SEEDS), found.seeds, default.settings.seed, default.scales)
    except OSError as error:
        raise OutputError(f"cannot be written: {error}", thing="out") from error
    write_json(join(folder, BEST), summary)
    print_table(ranked, default, num_images=num_images)
    if errors:
        by_stage = ", ".join(f"{stage}: {count}" for stage, count in errors.items())
        print(f"{sum(errors.values())} images ended in an error ({by_stage}) and count as all background")
    for name, value in (("without dCRF", cross), ("with dCRF", cross_crf)):
        if value is not None:
            print(f"cross-validated over {judging.num_folds} folds, {name}: mIoU {100 * value:.2f} %")
    if found.seeds:
        print_seeds(found.seeds, default.settings.seed, default.scales, coverage=judging.seed_coverage)
    print(f"take it with: python -m jobs.label --config {join(folder, BEST)} ...")
    return summary


def _settings(default: Default, best: Scored, seed: ScoredSeed | None) -> dict[str, Any]:
    """What ``best.json`` holds of the settings tree; what was not searched is left out, but for AffinityNet's."""
    inference_path, walk_path = map_paths(default.kind)
    beta = best.beta if best.num_steps else default.walk.beta
    walk = replace(default.walk, alpha=best.alpha, beta=beta, num_steps=best.num_steps)
    settings = with_part(default.settings, walk_path, walk)
    settings = with_part(settings, inference_path, replace(default.inference, scales=best.scales))
    paths = [inference_path, walk_path, "affinity.inference"]
    if best.with_crf:
        settings = with_part(settings, "crf", best.crf)
        paths.append("crf")
    if seed is not None:
        low, high = seed.pair
        settings = with_part(settings, "seed", replace(settings.seed, alpha_low=low, alpha_high=high))
        paths.append("seed")
    return parts_to_dict(settings, paths)
