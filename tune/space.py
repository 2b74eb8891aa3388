"""The search space: which scales, alphas, betas, numbers of steps and dCRFs are tried, cut into slices of one beta.

A slice is what one trial does: the walk's basis of one beta serves all its alphas and numbers of steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, Literal

import numpy as np

from engine.config import CrfConfig, WalkConfig
from engine.errors import ConfigError
from engine.storage.run_record import fingerprint

SearchName = Literal["grid", "random", "optuna"]
Scales = tuple[float, ...]

NO_CRF = CrfConfig(num_iterations=0)
CRF_NUMBERS = tuple(item.name for item in fields(CrfConfig) if item.name != "backend")
"""The constants of the dCRF."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One set of scales and one beta, with every pair of these alphas and numbers of steps."""

    scales: Scales
    """Of the CAM."""
    beta: float
    alphas: tuple[float, ...]
    """Rising."""
    steps: tuple[int, ...]
    """Rising; 0 leaves out the walk."""
    crf: CrfConfig = NO_CRF
    """The dense CRF; with one there is one alpha and one number of steps."""

    def __post_init__(self) -> None:
        assert list(self.alphas) == sorted(set(self.alphas)), self.alphas
        assert list(self.steps) == sorted(set(self.steps)), self.steps
        assert not self.with_crf or self.num_configurations == 1

    @property
    def with_crf(self) -> bool:
        """Whether there is a dense CRF at all."""
        return self.crf.num_iterations > 0

    @property
    def num_configurations(self) -> int:
        """Configurations of the slice."""
        return len(self.alphas) * len(self.steps)

    @property
    def name(self) -> str:
        """A file name that no other slice has."""
        return f"{'crf' if self.with_crf else 'walk'}-{self.beta:g}-{fingerprint(asdict(self))}"


def slice_of(scales: Scales, beta: float, alphas: Sequence[float], steps: Sequence[int]) -> Slice:
    """A slice whose values may come in any order and twice."""
    alphas = tuple(sorted(set(map(float, alphas))))
    return Slice(scales=scales, beta=float(beta), alphas=alphas, steps=tuple(sorted(set(steps))))


def grid_slices(
    scale_sets: Sequence[Scales], alphas: Sequence[float], betas: Sequence[float], steps: Sequence[int]
) -> list[Slice]:
    """Every combination; without a walk (0 steps) beta means nothing, so the first beta alone has it."""
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
    """Slices drawn between the least and the greatest of the given values, evenly on a logarithmic scale.

    Args:
        scale_sets: each slice draws one.
        alphas: each slice draws as many.
        steps: each slice draws as many; those that fall together count once, and 0 stays 0.
        num_betas: slices.
        rng_seed: the same seed gives the same slices.
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
    """The configuration that the search starts from."""
    return Slice(scales=scales, beta=walk.beta, alphas=(walk.alpha,), steps=(walk.num_steps,))


def scales_of(text: str) -> Scales:
    """``0.5,1,2`` as scales.

    Raises:
        ConfigError: it is something else.
    """
    try:
        scales = tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"must be numbers joined by commas, such as 0.5,1,2, got '{text}'", thing="cam_scales"
        ) from error
    return scales


def crfs_of(start: CrfConfig, texts: Sequence[str], *, num_draws: int, rng_seed: int) -> list[CrfConfig]:
    """The dCRFs that are tried: the one to start from, then combinations of other constants.

    Args:
        start: what a constant is where ``texts`` do not name it.
        texts: ``name=value,value`` each.
        num_draws: combinations drawn from all; 0 takes all.
        rng_seed: the same seed draws the same.

    Raises:
        ConfigError: a text names no constant, or a value that is not allowed.
    """
    choices: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        field = name.replace("-", "_")
        if field not in CRF_NUMBERS:
            allowed = ", ".join(known.replace("_", "-") for known in CRF_NUMBERS)
            raise ConfigError(f"must be name=value,value with a name of {allowed}, got '{text}'", thing="crf_values")
        kind = int if field == "num_iterations" else float
        try:
            choices[field] = [kind(value) for value in values.split(",")]
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            raise ConfigError(
                f"must have {what} joined by commas after the =, got '{text}'", thing="crf_values"
            ) from error
    try:
        found = [replace(start, **dict(zip(choices, values, strict=True))) for values in product(*choices.values())]
    except ConfigError as error:
        raise ConfigError(f"are not allowed: {error}", thing="crf_values") from error
    if any(crf.num_iterations == 0 for crf in found):
        raise ConfigError("must have num-iterations of 1 or more, got 0", thing="crf_values")
    others = [crf for crf in dict.fromkeys(found) if crf != start]
    if 0 < num_draws < len(others):
        chosen = np.random.default_rng(rng_seed).choice(len(others), num_draws, replace=False)
        others = [others[index] for index in sorted(chosen.tolist())]
    return [start, *others]
