"""Measure the start-up time of jobs.label on ten million rows, and the time and memory of its driver.

    python -m benchmarks manifest [--rows 10000000] [--shards 10] [--limit-s 1800] [--json FILE]

The manifest repeats a few small scenes under different ids. ``jobs.label`` runs with an untrained network, without walk
and dCRF, until it has written some shards; a second start shows how long it takes to find what is done. Wall time; on a
busy machine look at the CPU time. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.runner import Line, memory_mb, parser, report
from engine.fitting.objectives import Objective
from engine.networks import save_network
from engine.plain_settings import to_dict
from engine.presets import preset
from engine.scenes import CLASS_NAMES, write_scenes
from engine.storage.manifest import has_manifest
from engine.storage.run_record import WORK_FOLDER
from engine.storage.shards import committed_shards

NUM_SCENES = 24
SIDE_PX = 96


def write_inputs(folder: Path, num_rows: int) -> list[str]:
    """Scenes, the long manifest and a network; returns the options of the job."""
    write_scenes(str(folder / "scenes"), NUM_SCENES, rng_seed=0, width=SIDE_PX, height=SIDE_PX)
    rows = (folder / "scenes" / "manifest.csv").read_text().splitlines()[1:]
    with open(folder / "scenes" / "long.csv", "w") as manifest:
        manifest.write("image_id,image,tags\n")
        manifest.writelines(f"{number:08d},{rows[number % len(rows)]}\n" for number in range(num_rows))
    network = replace(preset("tiny").cam, backbone="mobilenetv3_small_050", weights="random")
    torch.manual_seed(0)
    objective = Objective.of(network, CLASS_NAMES)
    save_network(str(folder / "cam" / "weights.safetensors"), objective.architecture, objective.build().state_dict())
    inference = replace(network.inference, long_side_px=SIDE_PX, scales=(1.0,))
    settings = {"cam": {"inference": to_dict(inference)}, "walk": {"num_steps": 0}, "crf": {"num_iterations": 0}}
    (folder / "settings.json").write_text(json.dumps({"settings": settings}))
    options = {"data": folder / "scenes" / "long.csv", "cam": folder / "cam", "config": folder / "settings.json"}
    return [f"--{name}={value}" for name, value in options.items()]


def measure(start: str, options: list[str], out: Path, num_shards: int, limit_s: float) -> Line:
    """Start the job, wait until it has written some shards, and stop it."""
    before = len(committed_shards(str(out)))
    begin = time.monotonic()
    job = subprocess.Popen([sys.executable, "-m", "jobs.label", *options, f"--out={out}"], start_new_session=True)
    frozen_s = first_s = cpu_s = 0.0
    try:
        while (found := len(committed_shards(str(out))) - before) < num_shards:
            now = time.monotonic() - begin
            if job.poll() is not None or now > limit_s:
                raise SystemExit(f"jobs.label wrote {found} shards in {now:.0f} s; status {job.poll()}")
            frozen_s = frozen_s or (now if has_manifest(str(out / WORK_FOLDER)) else 0.0)
            if found and not first_s:
                first_s, cpu_s = now, cpu_seconds(driver_of(job.pid))
            time.sleep(0.1)
        return {
            "start": start,
            "manifest_frozen_s": frozen_s,
            "first_shard_s": first_s or time.monotonic() - begin,
            "driver_cpu_s": cpu_s or cpu_seconds(driver_of(job.pid)),
            "driver_peak_mb": memory_mb("VmHWM", driver_of(job.pid)),
        }
    finally:
        job.send_signal(signal.SIGINT)
        try:
            job.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait(10)


def driver_of(command: int) -> int:
    """Return the process that does a job's work, the child of the command's process, which waits for signals."""
    return int(Path(f"/proc/{command}/task/{command}/children").read_text().split()[0])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000_000, help="rows of the manifest")
    options.add_argument("--shards", type=int, default=10, help="shards to wait for in each start")
    options.add_argument("--limit-s", type=float, default=1800.0, help="give up a start after this many seconds")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tag2mask-manifest-") as name:
        folder = Path(name)
        inputs = write_inputs(folder, chosen.rows)
        lines = [measure(start, inputs, folder / "out", chosen.shards, chosen.limit_s) for start in ("first", "second")]
        frozen = (folder / "out" / WORK_FOLDER / "manifest").stat().st_size / 1e6
    report("manifest", lines, chosen.json, rows=chosen.rows, frozen_manifest_mb=frozen)
