"""The search space: combinations of scales, alphas, betas, steps and dCRFs, divided into slices with one beta each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np

from engine.config import CrfConfig, SeedConfig, WalkConfig
from engine.errors import ConfigError
from engine.plain_settings import merged
from engine.stages.count import Scales, Slice

CRF_NUMBERS = tuple(item.name for item in fields(CrfConfig) if item.name != "backend")
"""The numeric settings of the dCRF."""


def slice_of(scales: Scales, beta: float, alphas: Sequence[float], steps: Sequence[int]) -> Slice:
    """Create a slice from values in any order; duplicates are dropped."""
    alphas = tuple(sorted(set(map(float, alphas))))
    return Slice(scales=scales, beta=float(beta), alphas=alphas, steps=tuple(sorted(set(steps))))


def grid_slices(
    scale_sets: Sequence[Scales], alphas: Sequence[float], betas: Sequence[float], steps: Sequence[int]
) -> list[Slice]:
    """Create slices of every combination; beta has no effect on 0 steps, so only the first beta includes them."""
    slices: list[Slice] = []
    for scales in scale_sets:
        for index, beta in enumerate(sorted(set(betas))):
            own = [count for count in steps if count > 0 or index == 0]
            if own:
                slices.append(slice_of(scales, beta, alphas, own))
    return slices


def random_slices(
    scale_sets: Sequence[Scales],
    alphas: Sequence[float],
    betas: Sequence[float],
    steps: Sequence[int],
    *,
    num_betas: int,
    rng_seed: int,
) -> list[Slice]:
    """Sample slices log-uniformly between the smallest and largest of the given values.

    Args:
        scale_sets: Each slice samples one of these.
        alphas: Each slice samples as many.
        betas: Each slice samples one.
        steps: Each slice samples as many; duplicates are dropped, and the first slice keeps 0.
        num_betas: Number of slices.
        rng_seed: Random seed.
    """
    rng = np.random.default_rng(rng_seed)

    def draw(values: Sequence[float], count: int) -> list[float]:
        low, high = np.log(min(values)), np.log(max(values))
        return [float(f"{value:.3g}") for value in np.exp(rng.uniform(low, high, count))]

    walks = [count for count in steps if count > 0]
    slices: list[Slice] = []
    for index in range(num_betas):
        scales = scale_sets[int(rng.integers(len(scale_sets)))]
        (beta,) = draw(betas, 1)
        own = draw(alphas, len(alphas))
        counts = [max(1, round(count)) for count in draw(walks, len(walks))] if walks else []
        counts += [0] if 0 in steps and index == 0 else []
        if counts:
            slices.append(slice_of(scales, beta, own, counts))
    return slices


def default_slice(scales: Scales, walk: WalkConfig) -> Slice:
    """Create the slice of the default configuration."""
    return Slice(scales=scales, beta=walk.beta, alphas=(walk.alpha,), steps=(walk.num_steps,))


def pairs_of(lows: Sequence[float], highs: Sequence[float], seed: SeedConfig) -> tuple[tuple[float, float], ...]:
    """List every pair of seed alphas with low <= high, and the default pair."""
    pairs = {(low, high) for low, high in product(lows, highs) if low <= high}
    return tuple(sorted(pairs | {(seed.alpha_low, seed.alpha_high)}))


def scales_of(text: str) -> Scales:
    """Parse scales such as ``0.5,1,2``.

    Raises:
        ConfigError: The text is not a list of numbers.
    """
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        reason = f"must be numbers separated by commas, such as 0.5,1,2, got '{text}'"
        raise ConfigError(reason, thing="cam_scales") from error


def crfs_of(start: CrfConfig, texts: Sequence[str], *, num_draws: int, rng_seed: int) -> list[CrfConfig]:
    """List the dCRF settings to try: ``start``, then combinations of other values.

    Args:
        start: The default settings, which also supply values that ``texts`` do not name.
        texts: Values to try, each as ``name=value,value``.
        num_draws: Number of combinations to sample at random; 0 takes all.
        rng_seed: Random seed.

    Raises:
        ConfigError: A name is unknown or a value is not allowed.
    """
    choices: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.replace("-", "_").partition("=")
        try:
            choices[name] = json.loads(f"[{values}]")
        except ValueError:
            choices[name] = []
        if name not in CRF_NUMBERS or not choices[name]:
            allowed = ", ".join(known.replace("_", "-") for known in CRF_NUMBERS)
            reason = f"must be name=number,number, where name is one of {allowed}; got '{text}'"
            raise ConfigError(reason, thing="crf_values")
    combinations = (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))
    try:
        found = [merged(start, values, where=" ".join(texts)) for values in combinations]
    except ConfigError as error:
        raise ConfigError(f"cannot be used: {error}", thing="crf_values") from error
    if any(crf.num_iterations == 0 for crf in found):
        raise ConfigError("must have num-iterations of 1 or more, got 0", thing="crf_values")
    others = [crf for crf in dict.fromkeys(found) if crf != start]
    if 0 < num_draws < len(others):
        chosen = np.random.default_rng(rng_seed).choice(len(others), num_draws, replace=False)
        others = [others[index] for index in sorted(chosen.tolist())]
    return [start, *others]
