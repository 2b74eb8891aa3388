"""Send signals to jobs.run at random times and resume it after each.

    python -m benchmarks signals [--signals 50] [--rng-seed 0] [--longest-s 60]

Prints a line per signal; fails unless each ends the job within 10 seconds with the right status and one line, leaves no
process, and every chain ends with the masks of one that nothing disturbed.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from benchmarks.runner import parser, report
from tests.jobs.interruptions import JOB_LIMIT_S, Interruptions, chain_options
from tests.jobs.small_runs import NUM_SCENES, started, write_some_scenes


def main() -> None:
    known = parser(__doc__)
    known.add_argument("--signals", type=int, default=50)
    known.add_argument("--rng-seed", type=int, default=0)
    known.add_argument("--longest-s", type=float, default=60.0, help="latest moment of a signal after the first line")
    options = known.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="t2m-") as folder:
        scenes, calm = Path(folder, "scenes"), Path(folder, "calm")
        write_some_scenes(scenes, NUM_SCENES)
        with started("run", *chain_options(scenes, calm)) as run:
            status, said = run.finish(JOB_LIMIT_S)
        assert status == 0, said
        interruptions = Interruptions(
            scenes=scenes,
            calm=calm,
            folder=Path(folder),
            rng=random.Random(options.rng_seed),
            longest_s=options.longest_s,
            tell=lambda line: print(line, flush=True),
        )
        interruptions.run(options.signals)
    told = interruptions.told
    line = {
        "signals": len(told),
        "chains": interruptions.num_chains,
        "longest_end_s": max(one["ends_after_s"] for one in told),
        "longest_first_line_s": max(one["first_line_s"] for one in told),
        "mean_end_s": sum(one["ends_after_s"] for one in told) / len(told),
        "seconds": time.monotonic() - start,
    }
    report("signals", [line], options.json, signals=told)
