"""Label for a long time and watch the memory of every process: ``python -m benchmarks.soak``.

It labels the images of a manifest again and again under new ids, and compares the memory that each process holds for
itself (anonymous pages, not the store that all share) in the second quarter of the time with that in the last.
"""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path

import tyro

from engine.storage.manifest import iter_manifest

_MARK = "TAG2MASK_SOAK"
_PAUSE_S = 5.0
_IMAGES_PER_S = 20
_END_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Watch the memory of labeling."""

    data: str
    """The manifest."""
    cam: str
    """Folder that jobs.train_cam wrote."""
    affinity: str
    """Folder that jobs.train_affinity wrote."""
    preset: str = "small"
    """Settings."""
    minutes: float = 20.0
    """How long."""
    max_actors: int = 1
    """Most actors of each pool."""


def main(options: Soak) -> None:
    """Label, watch, print."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "jobs.label", "--allow-outside", f"--data={_repeated(options, Path(folder))}"),
            *(f"--cam={options.cam}", f"--affinity={options.affinity}", f"--out={folder}/masks"),
            *(f"--resources.max-{pool}-actors={options.max_actors}" for pool in ("network", "crf")),
            f"--preset={options.preset}",
        ]
        with open(f"{folder}/log", "wb") as log:
            job = subprocess.Popen(command, env={**os.environ, _MARK: mark}, stdout=log, stderr=log)
        try:
            while job.poll() is None and not _num_shards(folder):
                time.sleep(1)
            samples = _watch(job, mark, 60 * options.minutes)
        finally:
            job.send_signal(signal.SIGINT)
            job.wait(_END_S)
        if job.returncode not in (0, 1) or not samples:
            sys.exit(f"labeling ended with {job.returncode}: {Path(folder, 'log').read_text()[-2000:]}")
        num_shards = _num_shards(folder)
    print(f"{num_shards} shards in {options.minutes:g} minutes; anonymous memory, MiB")
    print(f"{'process':40} {'warm':>8} {'end':>8} {'growth':>8}")
    for name, (warm, end) in sorted(_growth(samples).items()):
        print(f"{name:40} {warm:8.0f} {end:8.0f} {end - warm:+8.0f}")


def _repeated(options: Soak, folder: Path) -> str:
    """The manifest's images under new ids, until there are enough."""
    rows = [
        (uri, tags)
        for batch in iter_manifest(options.data)
        for uri, tags in zip(batch["uri"], batch["tags"], strict=True)
    ]
    path = folder / "repeated.jsonl"
    with path.open("w") as file:
        for number in range(int(60 * options.minutes * options.max_actors * _IMAGES_PER_S) + len(rows)):
            uri, tags = rows[number % len(rows)]
            file.write(json.dumps({"image_id": str(number), "image": uri, "tags": tags}) + "\n")
    return str(path)


def _num_shards(folder: str) -> int:
    return len(list(Path(folder, "masks").glob("shard-*.parquet")))


def _watch(job: subprocess.Popen[bytes], mark: str, length_s: float) -> list[dict[str, float]]:
    """MiB of each process, every few seconds."""
    samples: list[dict[str, float]] = []
    end = time.monotonic() + length_s
    while time.monotonic() < end and job.poll() is None:
        time.sleep(_PAUSE_S)
        samples.append(_memory(mark))
    return samples


def _memory(mark: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or f"{_MARK}={mark}".encode() not in (entry / "environ").read_bytes():
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
            held = re.search(r"Anonymous:\s+(\d+) kB", (entry / "smaps_rollup").read_text())
        except OSError:  # gone
            continue
        if words and held:
            found[f"{_title(words)} ({entry.name})"] = int(held.group(1)) / 1024
    return found


def _title(words: list[str]) -> str:
    return "driver" if "jobs.label" in words else Path(words[0]).name[:28]


def _growth(samples: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Median of the second quarter and of the last, of the processes that lived that long."""
    quarter = len(samples) // 4
    warm, last = samples[quarter : 2 * quarter], samples[-quarter:]
    names = set.intersection(*(set(sample) for sample in warm + last)) if quarter else set()
    return {
        name: (statistics.median(one[name] for one in warm), statistics.median(one[name] for one in last))
        for name in names
    }


if __name__ == "__main__":
    main(tyro.cli(Soak))
