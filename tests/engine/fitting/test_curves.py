"""The curves of a training as a picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from engine.fitting.curves import draw_curves


def test_picture_grows_with_the_scores_and_shows_what_was_measured() -> None:
    curve = [
        {"step": step, "loss": 1 / step, "learning_rate": 0.1, "images_per_s": 5.0, "waiting": 0.1}
        for step in (1, 2, 3)
    ]
    plain = np.asarray(Image.open(io.BytesIO(draw_curves(curve, []))).convert("RGB"))
    validated = [{"step": 2, "loss": 0.9}, {"step": 3, "mean_ap": 0.5, "loss": 0.8}]
    more = np.asarray(Image.open(io.BytesIO(draw_curves(curve, validated))).convert("RGB"))
    assert plain.shape == (600, 1000, 3)
    assert more.shape == (900, 1000, 3)
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) > 10
    other = [{**point, "loss": 1.0} for point in curve]
    assert (np.asarray(Image.open(io.BytesIO(draw_curves(other, []))).convert("RGB")) != plain).any()
