"""Signals at random moments of the chain, with a fixed seed; ``python -m benchmarks signals`` sends more of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.jobs.conftest import Chain
from tests.jobs.interruptions import Interruptions

pytestmark = pytest.mark.slow
NUM_SIGNALS, SEED = 3, 0


@pytest.mark.timeout(1800)
def test_each_signal_ends_the_chain_which_then_resumes_to_the_same_masks(chain: Chain, tmp_path: Path) -> None:
    interruptions = Interruptions(
        scenes=Path(chain.config.data).parent,
        calm=Path(chain.config.out),
        folder=tmp_path,
        rng=random.Random(SEED),
        longest_s=40,
    )
    interruptions.run(NUM_SIGNALS)
    assert len(interruptions.told) == NUM_SIGNALS
    assert interruptions.num_chains >= 1
