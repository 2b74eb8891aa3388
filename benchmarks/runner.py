"""What the benchmarks share: process CPU time, a table, and JSON with the device's name and the date."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "voc12_animals"

Result = TypeVar("Result")
Line = dict[str, Any]


def timed(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """The result, seconds on the clock, and CPU seconds of this process, which other programs alter less."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - start, time.process_time() - start_cpu


def device_name() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def print_table(lines: Sequence[Line]) -> None:
    """The lines under the names of their columns; floats with four figures."""
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


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    return made
