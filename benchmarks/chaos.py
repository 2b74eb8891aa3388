"""Many deaths over one labeling run: its actors, driver and nodes and the S3 server, in an order that the seed decides.

    python -m benchmarks.chaos [--kills 12] [--rng-seed 0] [--outage-s 30]

Prints a line a death; exit status 0 when at the end every id is there once, with the mask of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.jobs.chaos import NUM_SCENES, ROWS_PER_SHARD, Chaos, cluster_of_nodes, schedule
from tests.s3_server import running_server

SHARDS_PER_KILL = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--outage-s", type=float, default=30.0)
    parser.add_argument("--progress-s", type=float, default=600.0, help="longest time without a new shard")
    options = parser.parse_args()
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
    print(f"{num_rows} images, each once, masks as undisturbed; {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
