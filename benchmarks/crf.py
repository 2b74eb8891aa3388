"""The dense CRF against pydensecrf: build and 10 iterations, one thread, process CPU time, both in the same run.

    python -m benchmarks crf [--images FOLDER] [--num-images 7] [--repeats 3] [--compile] [--json FILE]

``streaming`` has the spatial lattice at hand, as from the second image of a size on; ``alone`` builds it too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.runner import PHOTOGRAPHS, ROOT, device_name
from engine.ops import permutohedral
from engine.ops.crf import DenseCrf

IMAGES = PHOTOGRAPHS / "images"
SIZE = (500, 375)
CASES = ((2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (21, 1))
"""(K, number of unaries)."""
COMPILED = "from benchmarks.crf import compile_all; compile_all()"

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One line of the table: medians over the photographs; agreement over all of them."""

    num_labels: int
    num_unaries: int
    pydensecrf_ms: float
    streaming_ms: float
    alone_ms: float
    streaming_ratio: float
    alone_ratio: float
    equal_argmax: float
    worst_difference: float


def photographs(folder: Path, num_images: int) -> list[NDArray[np.uint8]]:
    """The first photographs of 500x375, or of any size where there are none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen: list[NDArray[np.uint8]] = []
    others: list[NDArray[np.uint8]] = []
    for path in paths:
        if len(chosen) == num_images:
            break
        with Image.open(path) as opened:
            if opened.size == SIZE:
                chosen.append(np.array(opened.convert("RGB")))
            elif len(others) < num_images:
                others.append(np.array(opened.convert("RGB")))
    return chosen or others


def probabilities(image: NDArray[np.uint8], num_labels: int, rng_seed: int) -> Probabilities:
    """Broad blobs of random classes, as class activation maps are: (K, H, W)."""
    rng = np.random.default_rng(rng_seed)
    size = (image.shape[1], image.shape[0])
    coarse = rng.standard_normal((num_labels, 8, 10)).astype(np.float32)
    scores = np.exp(1.5 * np.stack([np.asarray(Image.fromarray(plane).resize(size)) for plane in coarse]))
    return np.asarray(scores / scores.sum(axis=0), np.float32)


def refine(image: NDArray[np.uint8], unaries: list[Probabilities], backend: str) -> list[Probabilities]:
    """What is timed."""
    return DenseCrf(image, len(unaries[0]), backend=backend).infer_many(unaries, 10)


def timed_ms(call: Callable[[], list[Probabilities]]) -> tuple[float, list[Probabilities]]:
    """Process CPU time and the result."""
    start = time.process_time()
    result = call()
    return (time.process_time() - start) * 1e3, result


def measure(images: list[NDArray[np.uint8]], num_labels: int, num_unaries: int, repeats: int) -> Result:
    """Run the implementations in turns on every photograph."""
    reference_ms: list[float] = []
    streaming_ms: list[float] = []
    alone_ms: list[float] = []
    equal: list[float] = []
    worst = 0.0
    for number, image in enumerate(images):
        unaries = [probabilities(image, num_labels, 100 * number + s) for s in range(num_unaries)]
        refine(image, unaries, "numba")
        runs = []
        for _ in range(repeats):
            permutohedral._spatial_lattices.clear()
            alone, _ = timed_ms(lambda: refine(image, unaries, "numba"))  # noqa: B023
            reference, expected = timed_ms(lambda: refine(image, unaries, "pydensecrf"))  # noqa: B023
            streaming, refined = timed_ms(lambda: refine(image, unaries, "numba"))  # noqa: B023
            runs.append((reference, streaming, alone))
        for times, column in zip((reference_ms, streaming_ms, alone_ms), zip(*runs, strict=True), strict=True):
            times.append(statistics.median(column))
        for one, other in zip(refined, expected, strict=True):
            worst = max(worst, float(np.abs(one - other).max()))
            equal.append(float((one.argmax(axis=0) == other.argmax(axis=0)).mean()))

    def ratio(times: list[float]) -> float:
        return float(statistics.median(slow / fast for slow, fast in zip(reference_ms, times, strict=True)))

    return Result(
        num_labels=num_labels,
        num_unaries=num_unaries,
        pydensecrf_ms=statistics.median(reference_ms),
        streaming_ms=statistics.median(streaming_ms),
        alone_ms=statistics.median(alone_ms),
        streaming_ratio=ratio(streaming_ms),
        alone_ratio=ratio(alone_ms),
        equal_argmax=statistics.mean(equal),
        worst_difference=worst,
    )


def compile_all() -> None:
    """Call every variant of the compiled loops on a tiny image and print what each first call took."""
    image = np.zeros((4, 4, 3), np.uint8)
    for num_labels in (2, 3, 4, 21):
        start = time.perf_counter()
        refine(image, [np.full((num_labels, 4, 4), 1 / num_labels, np.float32)], "numba")
        print(f"{num_labels} {time.perf_counter() - start:.2f}")


def compile_times_s() -> dict[str, dict[str, float]]:
    """First calls by K in a fresh process with an empty cache on disk, and in another with the cache it left."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for state in ("empty cache", "full cache"):
            done = subprocess.run(
                [sys.executable, "-c", COMPILED],
                cwd=ROOT,
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            times[state] = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of photographs")
    parser.add_argument("--num-images", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="time the first calls with an empty cache too")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    if not arguments.images.is_dir():
        parser.error(f"--images: there is no folder {arguments.images}")
    images = photographs(arguments.images, arguments.num_images)
    if not images:
        parser.error(f"--images: no .jpg or .png in {arguments.images}")
    print(
        f"{len(images)} photographs of {images[0].shape[1]}x{images[0].shape[0]}, medians, ms of CPU time on one thread"
    )
    print(" K unaries  pydensecrf  streaming      alone  ratio streaming  alone  equal argmax  worst |dQ|")
    results = []
    for num_labels, num_unaries in CASES:
        result = measure(images, num_labels, num_unaries, arguments.repeats)
        results.append(result)
        print(
            f"{num_labels:2d} {num_unaries:7d} {result.pydensecrf_ms:11.1f} {result.streaming_ms:10.1f} "
            f"{result.alone_ms:10.1f} {result.streaming_ratio:15.2f}x {result.alone_ratio:5.2f}x "
            f"{100 * result.equal_argmax:12.4f}% {result.worst_difference:11.1e}",
            flush=True,
        )
    summary = {}
    for title, num_unaries in (("one unary", 1), ("two unaries", 2)):
        chosen = [result for result in results if result.num_labels <= 4 and result.num_unaries == num_unaries]
        summary[title] = {
            "streaming": statistics.median(result.streaming_ratio for result in chosen),
            "alone": statistics.median(result.alone_ratio for result in chosen),
        }
        ratios = ", ".join(f"{name} {value:.2f}x" for name, value in summary[title].items())
        print(f"{title}, median over K = 2..4: {ratios}")
    compile_s = compile_times_s() if arguments.compile else None
    if compile_s:
        print(f"first calls by K, s: {compile_s}")
    if arguments.json:
        report = {
            "device": device_name(),
            "date": time.strftime("%Y-%m-%d"),
            "results": [asdict(result) for result in results],
            "median_ratios": summary,
            "first_call_s": compile_s,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
