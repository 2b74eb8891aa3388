"""How soon a manifest of ten million rows is at work, and what its driver takes: ``python -m benchmarks.manifest``.

A few small scenes stand in the manifest again and again under different ids. ``jobs.label`` starts on it with a network
that nobody trained and without walk and dCRF, is stopped after some shards, and is started again to see how long it
takes to find out what is done. Wall time; on a busy machine look at the CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.fitting.objectives import Objective
from engine.networks import save_network
from engine.plain_settings import to_dict
from engine.presets import preset
from engine.scenes import CLASS_NAMES, write_scenes
from engine.storage.shards import committed_shards

NUM_SCENES = 24
SIDE_PX = 96
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of the job, until it was stopped."""

    first_shard_s: float
    """From the start of the process to its first shard."""
    listing_read_s: float
    """From the start of the process until the manifest was frozen."""
    driver_cpu_s: float
    """Of the driver alone, until the first shard."""
    driver_peak_mb: float
    shards: int


def _write_inputs(folder: Path, num_rows: int) -> list[str]:
    """Scenes, the long manifest, a network; gives the options of the job."""
    write_scenes(str(folder / "scenes"), NUM_SCENES, rng_seed=0, width=SIDE_PX, height=SIDE_PX)
    rows = (folder / "scenes" / "manifest.csv").read_text().splitlines()[1:]
    with open(folder / "scenes" / "long.csv", "w") as manifest:
        manifest.write("image_id,image,tags\n")
        for start in range(0, num_rows, len(rows)):
            some = rows[: num_rows - start]
            manifest.writelines(f"{start + offset:08d},{row}\n" for offset, row in enumerate(some))
    tiny = preset("tiny")
    network = replace(tiny.cam, backbone="mobilenetv3_small_050", weights="random")
    torch.manual_seed(0)
    objective = Objective.of(network, CLASS_NAMES)
    save_network(str(folder / "cam" / "weights.safetensors"), objective.architecture, objective.build().state_dict())
    sight = replace(network.inference, long_side_px=SIDE_PX, scales=(1.0,))
    settings = {"cam": {"inference": to_dict(sight)}, "walk": {"num_steps": 0}, "crf": {"num_iterations": 0}}
    (folder / "settings.json").write_text(json.dumps({"settings": settings}))
    options = {"data": folder / "scenes" / "long.csv", "cam": folder / "cam", "config": folder / "settings.json"}
    return [f"--{name}={value}" for name, value in options.items()]


def _started(options: list[str], out: Path, num_shards: int, limit_s: float) -> Start:
    """Start the job, wait for some more shards than there are, stop it with all its processes."""
    before = len(committed_shards(str(out)))
    frozen = out / ".tag2mask" / "manifest"
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.label", *options, f"--out={out}"], cwd=ROOT, start_new_session=True
    )
    frozen_s = first_s = cpu_s = 0.0
    try:
        while (found := len(committed_shards(str(out))) - before) < num_shards:
            now = time.monotonic() - start
            if process.poll() is not None or now > limit_s:
                raise SystemExit(f"jobs.label made {found} shards in {now:.0f} s; status {process.poll()}")
            frozen_s = frozen_s or (now if frozen.exists() else 0.0)
            if found and not first_s:
                first_s, cpu_s = now, _cpu_seconds(process.pid)
            time.sleep(0.1)
        first_s = first_s or time.monotonic() - start
        return Start(
            first_shard_s=first_s,
            listing_read_s=frozen_s,
            driver_cpu_s=cpu_s or _cpu_seconds(process.pid),
            driver_peak_mb=_peak_mb(process.pid),
            shards=found,
        )
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(num_rows: int, num_shards: int, limit_s: float) -> dict[str, Any]:
    """The figures of a first start and of a second one."""
    with tempfile.TemporaryDirectory(prefix="tag2mask-manifest-") as name:
        folder = Path(name)
        options = _write_inputs(folder, num_rows)
        out = folder / "out"
        first = _started(options, out, num_shards, limit_s)
        frozen_mb = (out / ".tag2mask" / "manifest").stat().st_size / 1e6
        second = _started(options, out, num_shards, limit_s)
    return {
        "rows": num_rows,
        "seconds until the manifest is frozen": round(first.listing_read_s, 1),
        "seconds from there to the first shard": round(first.first_shard_s - first.listing_read_s, 1),
        "CPU seconds of the driver to the first shard": round(first.driver_cpu_s, 1),
        "driver's peak MB": round(first.driver_peak_mb),
        "frozen manifest, MB": round(frozen_mb, 1),
        "seconds from a second start to its first shard": round(second.first_shard_s, 1),
        "driver's peak MB, second start": round(second.driver_peak_mb),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the manifest")
    parser.add_argument("--shards", type=int, default=10, help="shards of 64 images to wait for in each start")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="seconds after which a start is given up")
    parser.add_argument("--json", default="", help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = measure(arguments.rows, arguments.shards, arguments.limit_s)
    for name, value in figures.items():
        print(f"{value:>14} {name}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
