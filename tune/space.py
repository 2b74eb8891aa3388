"""The search space: which alphas, betas and numbers of steps are tried, cut into slices of one beta.

A slice is what one trial does: the walk's basis of one beta serves all its alphas and numbers of steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from engine.config import WalkConfig
from engine.storage.run_record import fingerprint

SearchName = Literal["grid", "random", "optuna"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One beta with every pair of these alphas and numbers of steps."""

    beta: float
    alphas: tuple[float, ...]
    """Rising."""
    steps: tuple[int, ...]
    """Rising; 0 leaves out the walk."""
    crf: bool = False
    """With the dense CRF; then there is one alpha and one number of steps."""

    def __post_init__(self) -> None:
        assert list(self.alphas) == sorted(set(self.alphas)), self.alphas
        assert list(self.steps) == sorted(set(self.steps)), self.steps
        assert not self.crf or self.num_configurations == 1

    @property
    def num_configurations(self) -> int:
        """Configurations of the slice."""
        return len(self.alphas) * len(self.steps)

    @property
    def name(self) -> str:
        """A file name that no other slice has."""
        return f"{'crf' if self.crf else 'walk'}-{self.beta:g}-{fingerprint(asdict(self))}"


def single(alpha: float, beta: float, num_steps: int, *, crf: bool = False) -> Slice:
    """The slice of one configuration."""
    return Slice(beta=beta, alphas=(alpha,), steps=(num_steps,), crf=crf)


def slice_of(beta: float, alphas: Sequence[float], steps: Sequence[int]) -> Slice:
    """A slice whose values may come in any order and twice."""
    return Slice(beta=float(beta), alphas=tuple(sorted(set(map(float, alphas)))), steps=tuple(sorted(set(steps))))


def grid_slices(alphas: Sequence[float], betas: Sequence[float], steps: Sequence[int]) -> list[Slice]:
    """Every combination; without a walk (0 steps) beta means nothing, so the first beta alone has it."""
    slices: list[Slice] = []
    for beta in sorted(set(betas)):
        own = [count for count in steps if count > 0 or not slices]
        if own:
            slices.append(slice_of(beta, alphas, own))
    return slices


def random_slices(
    alphas: Sequence[float], betas: Sequence[float], steps: Sequence[int], *, num_betas: int, rng_seed: int
) -> list[Slice]:
    """Slices drawn between the least and the greatest of the given values, evenly on a logarithmic scale.

    Args:
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
        (beta,) = draw(betas, 1)
        own = draw(alphas, len(alphas))
        counts = [max(1, round(count)) for count in draw(walks, len(walks))] if walks else []
        counts += [0] if 0 in steps and index == 0 else []
        if counts:
            slices.append(slice_of(beta, own, counts))
    return slices


def default_slice(walk: WalkConfig) -> Slice:
    """The configuration that the search starts from."""
    return single(walk.alpha, walk.beta, walk.num_steps)
