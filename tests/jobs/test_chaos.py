"""Deaths of every kind over one labeling run, with a fixed seed; ``python -m benchmarks chaos`` does more of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.jobs.chaos import KINDS, Chaos, cluster_of_nodes, schedule
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.s3]
SEED = 0


def test_every_id_is_there_once_with_its_mask_whatever_died_on_the_way(s3: S3Server, tmp_path: Path) -> None:
    with cluster_of_nodes(2) as cluster:
        chaos = Chaos(server=s3, cluster=cluster, folder=tmp_path, num_rows=300, outage_s=5.0, rng=random.Random(SEED))
        chaos.prepare()
        kinds = schedule(len(KINDS), SEED)
        chaos.run(kinds)
        assert [line.split()[1].strip(",") for line in chaos.told] == kinds
        chaos.check()
