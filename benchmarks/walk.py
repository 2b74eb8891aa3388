"""The random walk from features to refined maps, against the authors' dense squaring and the plain sparse loop.

    python -m benchmarks walk [--sides 28 56 128] [--num-maps 4] [--num-steps 256] [--repeats 3] [--threads 2]

``engine`` is ``refine``: affinities, their matrix and the walk. The baselines start from the matrix: ``dense`` squares
it log2(t) times, as jiwoon-ahn/psa does, ``sparse`` multiplies by it t times as a CSR matrix. ``worst error`` compares
with t products in float64. Grids above 56 x 56 have no ``dense``: its matrix would be too large. Ratios are of CPU
time. Linux only: it reads /proc.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.runner import Line, memory_mb, parser, report, timed
from engine.ops.affinity import affinity_planes
from engine.ops.random_walk import difference_matrix, refine

RADIUS, BETA, NUM_FEATURES = 5, 8.0, 448
LARGEST_DENSE_SIDE = 56


def scene(side: int, num_maps: int) -> tuple[Tensor, Tensor]:
    """Maps with peaks, and features that change from region to region, as those of a network do."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.randn(1, NUM_FEATURES, side // 7 + 1, side // 7 + 1, generator=generator)
    features = functional.interpolate(coarse, size=(side, side), mode="bilinear")[0]
    cam = torch.rand(num_maps, side, side, generator=generator) ** 4
    return cam / cam.amax(dim=(1, 2), keepdim=True), features.contiguous()


def dense_walk(cam: Tensor, transition: Tensor, num_steps: int) -> Tensor:
    """The authors' way: square the matrix, then multiply once."""
    power = transition
    for _ in range(round(math.log2(num_steps))):
        power = power @ power
    return (power @ cam.flatten(1).t()).t().reshape(cam.shape)


def sparse_walk(cam: Tensor, differences: Tensor, *, num_steps: int) -> Tensor:
    """Step by step (paper, eq. 9): t products with the sparse matrix."""
    maps = cam.flatten(1).t().contiguous()
    for _ in range(num_steps):
        maps = torch.addmm(maps, differences, maps)
    return maps.t().reshape(cam.shape)


def measure(side: int, num_maps: int, num_steps: int, repeats: int) -> Line:
    """One line: medians of runs that take turns."""
    cam, features = scene(side, num_maps)
    refine(cam, features, num_steps=num_steps)  # compiled here
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_mb("VmRSS")
    refined = refine(cam, features, num_steps=num_steps)
    memory = memory_mb("VmHWM") - before
    differences = differences_of(features)
    exact = sparse_walk(cam.double(), differences_of(features.double()), num_steps=num_steps)
    calls: dict[str, Callable[[], Tensor]] = {
        "engine": lambda: refine(cam, features, num_steps=num_steps),
        "sparse": lambda: sparse_walk(cam, differences, num_steps=num_steps),
    }
    if side <= LARGEST_DENSE_SIDE:
        dense = differences.to_dense() + torch.eye(side**2)
        calls["dense"] = lambda: dense_walk(cam, dense, num_steps)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for name, call in calls.items():
            if name != "dense" or number == 0:
                _, wall, cpu = timed(call)
                seconds[name].append(wall)
                cpu_seconds[name].append(cpu)

    def ratio(name: str) -> float:
        if name not in calls:
            return math.nan
        return statistics.median(cpu_seconds[name]) / statistics.median(cpu_seconds["engine"])

    return {
        "grid": f"{side}x{side}",
        "engine_ms": 1e3 * min(seconds["engine"]),
        "engine_cpu_ms": 1e3 * statistics.median(cpu_seconds["engine"]),
        "us_of_cpu_a_cell": 1e6 * statistics.median(cpu_seconds["engine"]) / side**2,
        "times_as_fast_as_dense": ratio("dense"),
        "times_as_fast_as_sparse": ratio("sparse"),
        "worst_error": float((refined - exact).abs().max()),
        "peak_memory_mb": memory,
    }


def differences_of(features: Tensor) -> Tensor:
    """The sparse (N, N) matrix T - I of one step between the cells of (D, h, w) features."""
    return difference_matrix(affinity_planes(features[None], RADIUS)[0], radius=RADIUS, beta=BETA)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sides", type=int, nargs="+", default=[28, 56, 128], help="cells of a side of the grid")
    options.add_argument("--num-maps", type=int, default=4)
    options.add_argument("--num-steps", type=int, default=256, help="a power of 2")
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    with torch.inference_mode():
        lines = [measure(side, chosen.num_maps, chosen.num_steps, chosen.repeats) for side in chosen.sides]
    report("walk", lines, chosen.json, num_maps=chosen.num_maps, num_steps=chosen.num_steps)
