"""What the classifier thinks of the tags."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.imaging.scaling import resized
from engine.networks import load_network
from engine.presets import preset
from engine.stages.tag_scores import ScoreTags
from tests.engine.stages.examples import CLASS_NAMES, PASSES, picture, png, rows

SIGHT = replace(preset("tiny").cam.inference, long_side_px=64, scales=(1.0, 1.5), flip=True)


def test_probability_is_the_mean_over_scales_and_flip(cam_weights: str) -> None:
    image = picture(48, 64)
    stage = ScoreTags(cam_weights, SIGHT, PASSES)
    batch = rows([png(image), b"no picture", png(image)], [[1], [2], []])
    batch["error"][2] = "fetch: gone"
    out = stage(batch)
    assert not {"encoded", "class_ids"} & out.keys()
    assert out["error"][0] is None
    assert out["error"][1].startswith("decode: ")
    assert out["error"][2] == "fetch: gone"
    assert out["probabilities"][1:] == [None, None]

    network, _ = load_network(cam_weights, "cam")
    expected = torch.zeros(len(CLASS_NAMES))
    with torch.no_grad():
        for size in ((48, 64), (72, 96)):
            scaled = torch.from_numpy(resized(image, size).copy()).permute(2, 0, 1)[None]
            for seen in (scaled, scaled.flip(-1)):
                expected += network(seen)[0].sigmoid() / 4
    assert out["probabilities"][0] == pytest.approx(expected.tolist(), abs=1e-5)
