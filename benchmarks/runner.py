"""Shared by benchmarks and experiments: options, timing, memory, and reports as a table and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Line = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="also write the results to this file")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    return made


def timed(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """The result, wall seconds, and CPU seconds of this process, which other programs disturb less."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - start, time.process_time() - start_cpu


def memory_mb(name: str, pid: int | None = None) -> float:
    """A line of /proc/PID/status in MiB: ``VmRSS`` is the memory in use, ``VmHWM`` its peak; Linux only."""
    lines = Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def device_name() -> str:
    """The GPU, or the number of cores and their model."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def print_table(lines: Sequence[Line]) -> None:
    """The lines under the names of their columns; floats with four digits."""
    cells = [[name.replace("_", " ") for name in lines[0]]]
    cells += [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in line.values()] for line in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)


def report(name: str, lines: Sequence[Line], path: Path | None, **more: Any) -> None:
    """Print the table, and write it to a JSON file if one is asked for."""
    print_table(lines)
    if path is not None:
        found = {"benchmark": name, "device": device_name(), "threads": torch.get_num_threads()}
        found |= {"date": time.strftime("%Y-%m-%d"), **more, "results": list(lines)}
        path.write_text(json.dumps(found, indent=2) + "\n")
