"""Label for a long time and measure the memory growth of every process.

    python -m benchmarks soak --data MANIFEST --cam FOLDER --affinity FOLDER [--minutes 20] [--preset small]
        [--max-actors 1] [--json FILE]

jobs.label gets the images of the manifest again and again under new ids. ``growth`` is the private memory of a process
(anonymous pages, not the shared object store) in the last quarter of the time less that in the second quarter, medians.
Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.runner import Line, parser, report
from engine.storage.shards import committed_shards
from engine.storage.user_manifest import iter_manifest

MARK = "TAG2MASK_SOAK"
"""Environment variable that marks the processes of the run."""
PAUSE_S = 5.0
IMAGES_PER_S = 20
END_S = 60.0

Sample = dict[str, float]
"""MiB of each process."""


def watched(options: argparse.Namespace, folder: Path) -> tuple[list[Sample], int]:
    """Samples of the memory while jobs.label runs, and the number of shards that it wrote."""
    mark, masks = uuid.uuid4().hex, folder / "masks"
    command = [
        *(sys.executable, "-m", "jobs.label", "--allow-outside", f"--data={repeated_manifest(options, folder)}"),
        *(f"--cam={options.cam}", f"--affinity={options.affinity}", f"--out={masks}", f"--preset={options.preset}"),
        *(f"--resources.max-{pool}-actors={options.max_actors}" for pool in ("network", "crf")),
    ]
    with open(folder / "log", "wb") as log:
        job = subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=log, stderr=log)
    samples: list[Sample] = []
    try:
        while job.poll() is None and not committed_shards(str(masks)):
            time.sleep(1)
        end = time.monotonic() + 60 * options.minutes
        while job.poll() is None and time.monotonic() < end:
            time.sleep(PAUSE_S)
            samples.append(memory_of(mark))
    finally:
        job.send_signal(signal.SIGINT)
        job.wait(END_S)
    if job.returncode not in (0, 130) or not samples:
        raise SystemExit(f"jobs.label ended with status {job.returncode}: {(folder / 'log').read_text()[-2000:]}")
    return samples, len(committed_shards(str(masks)))


def repeated_manifest(options: argparse.Namespace, folder: Path) -> Path:
    """The manifest's images under new ids, more than can be labeled in the time."""
    rows = [
        (uri, tags)
        for batch in iter_manifest(options.data)
        for uri, tags in zip(batch["uri"], batch["tags"], strict=True)
    ]
    path = folder / "repeated.jsonl"
    with path.open("w") as file:
        for number in range(int(60 * options.minutes * options.max_actors * IMAGES_PER_S) + len(rows)):
            uri, tags = rows[number % len(rows)]
            file.write(json.dumps({"image_id": str(number), "image": uri, "tags": tags}) + "\n")
    return path


def memory_of(mark: str) -> Sample:
    """Private memory of every process that carries the mark."""
    found: Sample = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or f"{MARK}={mark}".encode() not in (entry / "environ").read_bytes():
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
            held = re.search(r"Anonymous:\s+(\d+) kB", (entry / "smaps_rollup").read_text())
        except OSError:  # it has ended
            continue
        if words and held:
            title = "driver" if "jobs.label" in words else Path(words[0]).name[:28]
            found[f"{title} ({entry.name})"] = int(held.group(1)) / 1024
    return found


def growth(samples: list[Sample]) -> list[Line]:
    """A line for each process that lived from the second quarter to the end."""
    quarter = len(samples) // 4
    warm, last = samples[quarter : 2 * quarter], samples[-quarter:]
    names = set.intersection(*(set(sample) for sample in warm + last)) if quarter else set()
    lines: list[Line] = []
    for name in sorted(names):
        before, after = (statistics.median(one[name] for one in some) for some in (warm, last))
        lines.append({"process": name, "warm_mb": before, "end_mb": after, "growth_mb": after - before})
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="the manifest")
    options.add_argument("--cam", required=True, help="output folder of jobs.train_cam")
    options.add_argument("--affinity", required=True, help="output folder of jobs.train_affinity")
    options.add_argument("--preset", default="small")
    options.add_argument("--minutes", type=float, default=20.0)
    options.add_argument("--max-actors", type=int, default=1, help="maximum number of actors of each pool")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, num_shards = watched(chosen, Path(folder))
    lines = growth(samples)
    if not lines:
        raise SystemExit(f"{len(samples)} samples are too few; use more --minutes")
    report("soak", lines, chosen.json, minutes=chosen.minutes, shards=num_shards)
