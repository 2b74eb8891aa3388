"""Deaths of every kind over one labeling run, with a fixed seed; ``python -m benchmarks chaos`` does more of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.jobs.chaos import KINDS, Chaos, add_node, schedule
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.s3]
SEED = 0


def test_every_id_is_there_once_with_its_mask_whatever_died_on_the_way(
    cluster: Cluster, s3: S3Server, tmp_path: Path
) -> None:
    for _ in range(2):
        add_node(cluster)
    chaos = Chaos(server=s3, cluster=cluster, folder=tmp_path, num_rows=300, outage_s=5.0, rng=random.Random(SEED))
    chaos.prepare()
    kinds = schedule(len(KINDS), SEED)
    chaos.run(kinds)
    assert [line.split()[1].strip(",") for line in chaos.told] == kinds
    chaos.check()
