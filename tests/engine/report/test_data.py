"""The contents of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.report import ReportData, ReportImage


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (ReportData, dict(title="", class_names=["a"], num_images=1, areas=[1.0])),
        (ReportData, dict(title="", class_names=["a"], num_images=1, confusion=np.eye(3, dtype=np.int64))),
        (ReportData, dict(title="", class_names=["a"], num_images=1, confidences=[0.1], ious=[])),
        (ReportImage, dict(image_id="a", tags=[], cam=np.ones((1, 2, 2)))),
        (ReportImage, dict(image_id="a", tags=[], walked=np.ones((1, 2, 2)))),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(kind: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must have|(values|names) for"):
        kind(**changes)
