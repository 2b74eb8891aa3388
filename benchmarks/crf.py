"""The dense CRF against pydensecrf: build and 10 iterations, one thread, CPU time, both in the same run.

    python -m benchmarks crf --data MANIFEST [--num-images 7] [--repeats 3] [--json FILE]

``streaming`` has the spatial lattice already, as for the second and later images of a size; ``alone`` builds it too.
Times and ratios are medians over the images, ``equal argmax`` and ``worst difference`` are over all of them.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photographs import MAX_PIXELS
from benchmarks.runner import Line, parser, report, timed
from engine.config import CrfConfig
from engine.imaging.decoding import decode_image
from engine.ops.crf import DenseCrf
from engine.resources import Decoding
from engine.storage.pictures import read_picture
from engine.storage.user_manifest import iter_manifest

SIZE = (500, 375)
CASES = ((2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (21, 1))
"""(K, number of unaries)."""
ENGINE, REFERENCE = CrfConfig(backend="numba"), CrfConfig(backend="pydensecrf")

Probabilities = NDArray[np.float32]


def photographs(data: str, num_images: int) -> list[NDArray[np.uint8]]:
    """The first photographs of 500x375; of any size if there is none."""
    chosen: list[NDArray[np.uint8]] = []
    others: list[NDArray[np.uint8]] = []
    for uri in (uri for batch in iter_manifest(data) for uri in batch["uri"]):
        if len(chosen) == num_images:
            break
        image = decode_image(read_picture(uri), Decoding(max_pixels=MAX_PIXELS))
        if image.shape[1::-1] == SIZE:
            chosen.append(image)
        elif len(others) < num_images:
            others.append(image)
    return chosen or others


def probabilities(image: NDArray[np.uint8], num_labels: int, rng_seed: int) -> Probabilities:
    """Broad blobs of random classes, like class activation maps: (K, H, W)."""
    rng = np.random.default_rng(rng_seed)
    size = (image.shape[1], image.shape[0])
    coarse = rng.standard_normal((num_labels, 8, 10)).astype(np.float32)
    scores = np.exp(1.5 * np.stack([np.asarray(Image.fromarray(plane).resize(size)) for plane in coarse]))
    return np.asarray(scores / scores.sum(axis=0), np.float32)


def refine(image: NDArray[np.uint8], unaries: list[Probabilities], crf: CrfConfig) -> list[Probabilities]:
    """What is timed."""
    return DenseCrf(image, len(unaries[0]), kernels=crf, backend=crf.backend).infer_many(unaries, crf.num_iterations)


def measure(images: list[NDArray[np.uint8]], num_labels: int, num_unaries: int, repeats: int) -> Line:
    """One line: the implementations take turns on every photograph."""
    times: dict[str, list[float]] = {"pydensecrf": [], "streaming": [], "alone": []}
    equal: list[float] = []
    worst = 0.0
    for number, image in enumerate(images):
        unaries = [probabilities(image, num_labels, 100 * number + s) for s in range(num_unaries)]
        refine(image, unaries, ENGINE)  # compile, and keep the spatial lattice
        runs: dict[str, list[float]] = {name: [] for name in times}
        for repeat in range(repeats):
            # a spatial kernel that was never used before, and so has no lattice yet
            fresh = replace(ENGINE, spatial_sigma_px=ENGINE.spatial_sigma_px + 1e-6 * (1 + number * repeats + repeat))
            found = {}
            for name, crf in {"alone": fresh, "pydensecrf": REFERENCE, "streaming": ENGINE}.items():
                found[name], _, cpu_seconds = timed(lambda: refine(image, unaries, crf))  # noqa: B023
                runs[name].append(1e3 * cpu_seconds)
        for name, column in runs.items():
            times[name].append(statistics.median(column))
        for one, other in zip(found["streaming"], found["pydensecrf"], strict=True):
            worst = max(worst, float(np.abs(one - other).max()))
            equal.append(float((one.argmax(axis=0) == other.argmax(axis=0)).mean()))

    def ratio(name: str) -> float:
        return statistics.median(slow / fast for slow, fast in zip(times["pydensecrf"], times[name], strict=True))

    return {
        "K": num_labels,
        "unaries": num_unaries,
        **{f"{name}_ms": statistics.median(column) for name, column in times.items()},
        "times_as_fast_streaming": ratio("streaming"),
        "times_as_fast_alone": ratio("alone"),
        "equal_argmax": statistics.mean(equal),
        "worst_difference": worst,
    }


def median_of(lines: list[Line], num_unaries: int) -> Line:
    """One line for K = 2 to 4."""
    chosen = [line for line in lines if line["K"] <= 4 and line["unaries"] == num_unaries]
    return {**{name: statistics.median(line[name] for line in chosen) for name in lines[0]}, "K": "2-4"}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="a manifest of photographs")
    options.add_argument("--num-images", type=int, default=7)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    images = photographs(chosen.data, chosen.num_images)
    lines = [measure(images, num_labels, num_unaries, chosen.repeats) for num_labels, num_unaries in CASES]
    lines += [median_of(lines, num_unaries) for num_unaries in (1, 2)]
    report("crf", lines, chosen.json, images=len(images))
