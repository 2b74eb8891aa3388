"""What the tests of the jobs share: one run of the whole chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from jobs import make_scenes, run
from tests.jobs.chaos import cluster_of_nodes
from tests.jobs.small_runs import CHAIN_SETTINGS, NUM_SCENES


@dataclass(frozen=True)
class Chain:
    """A finished run of jobs.run and what it returned; whoever changes its folder works on a copy."""

    config: run.Run
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def head() -> Iterator[Cluster]:
    """A cluster whose head runs drivers only."""
    with cluster_of_nodes(0) as started:
        yield started


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """The head; the nodes that a test adds are gone after it."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, ray_session: None, quick_reports: None) -> Chain:
    """The whole chain over a few scenes, which lie with their truth in the same folder."""
    root = tmp_path_factory.mktemp("chain")
    make_scenes.run(make_scenes.MakeScenes(out=str(root / "scenes"), num_images=NUM_SCENES, width=96, height=96))
    config = run.Run(
        data=str(root / "scenes" / "manifest.csv"),
        truth=str(root / "scenes" / "truth"),
        out=str(root),
        settings=CHAIN_SETTINGS,
    )
    return Chain(config=config, summary=run.run(config))
