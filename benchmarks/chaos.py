"""Kill actors, driver, nodes and the S3 server of one labeling run, in an order that the seed decides.

    python -m benchmarks chaos [--kills 12] [--rng-seed 0] [--outage-s 30]

Prints a line per kill; fails unless at the end every id is there once, with the mask of an undisturbed run.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

from benchmarks.runner import parser, report
from tests.jobs.chaos import NUM_SCENES, ROWS_PER_SHARD, Chaos, cluster_of_nodes, schedule
from tests.s3_server import running_server

SHARDS_PER_KILL = 30


def main() -> None:
    known = parser(__doc__)
    known.add_argument("--kills", type=int, default=12)
    known.add_argument("--rng-seed", type=int, default=0)
    known.add_argument("--outage-s", type=float, default=30.0, help="seconds without the S3 server")
    known.add_argument("--progress-s", type=float, default=600.0, help="maximum time without a new shard")
    options = known.parse_args()
    num_rows = NUM_SCENES * (1 + options.kills * SHARDS_PER_KILL * ROWS_PER_SHARD // NUM_SCENES)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="t2m-") as folder, running_server(Path(folder)) as server:
        os.environ.update(server.variables())
        with cluster_of_nodes(2) as cluster:
            local = Path(folder, "chaos")
            local.mkdir()
            chaos = Chaos(
                server=server,
                cluster=cluster,
                folder=local,
                num_rows=num_rows,
                outage_s=options.outage_s,
                progress_s=options.progress_s,
                rng=random.Random(options.rng_seed),
                tell=lambda line: print(line, flush=True),
            )
            chaos.prepare()
            chaos.run(schedule(options.kills, options.rng_seed))
            chaos.check()
    report("chaos", [{"images": num_rows, "kills": options.kills, "seconds": time.monotonic() - start}], options.json)
