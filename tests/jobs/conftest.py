"""What the tests of the jobs share: one run of the whole chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from jobs import make_scenes, run
from tests.jobs.small_runs import CHAIN_SETTINGS, NUM_SCENES


@dataclass(frozen=True)
class Chain:
    """A finished run of jobs.run and what it returned; whoever changes its folder works on a copy."""

    config: run.Run
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def quick_reports() -> Iterator[None]:
    """Ray Train looks more often whether a worker has reported: seconds a training, which is all that these last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


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
