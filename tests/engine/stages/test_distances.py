"""The distances that a search caches, against the features that the walk uses."""

from __future__ import annotations

import numpy as np

from engine.config import AffinityInferenceConfig, WalkConfig
from engine.imaging.codecs import decode_map
from engine.imaging.scaling import resized
from engine.ops.sweep import pair_distances
from engine.resources import PassConfig
from engine.stages.distances import ComputeDistances
from engine.stages.walk import RefineCam
from tests.engine.stages.examples import picture, png, rows

INFERENCE, WALK = AffinityInferenceConfig(long_side_px=64), WalkConfig(radius=3)
PASSES = PassConfig(images_per_pass=2)


def test_distances_are_those_of_the_walks_features_and_null_where_nothing_walks(affinity_weights: str) -> None:
    pictures = [picture(64, 48, number) for number in range(4)]
    batch = rows([png(one) for one in pictures], [[1], [2], [], [3]])
    batch["error"][3] = "fetch: gone"
    out = ComputeDistances(affinity_weights, INFERENCE, WALK, PASSES)(batch)
    assert [one is None for one in out["distances"]] == [False, False, True, True]
    refine = RefineCam(affinity_weights, INFERENCE, WALK, PASSES, keep_cam=False)
    for one, encoded in zip(pictures[:2], out["distances"], strict=False):
        (features,) = refine.features([resized(one, (64, 48))])
        expected = pair_distances(features, WALK.radius).numpy()
        found = decode_map(encoded)
        assert found.shape == expected.shape
        inside = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(found), inside)
        np.testing.assert_allclose(found[inside], expected[inside], rtol=2e-3, atol=1e-4)
