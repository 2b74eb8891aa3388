"""The contents of a report, as its caller gathers them. What is None or empty is left out.

Letters: C classes (background not counted), K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportImage:
    """One image of the gallery."""

    image_id: str
    """As in the manifest."""
    tags: Sequence[str]
    """Names, including those outside the classes."""
    group: str = ""
    """Why it was chosen: 'most confident', 'least confident', 'random', 'class dog', 'error'."""
    photograph: NDArray[np.uint8] | None = None
    """(H, W, 3); None if it could not be decoded."""
    mask: Mask | None = None
    """(H, W) of class ids: the product; None with an error. Its size may differ from the photograph's."""
    mask_cam: Mask | None = None
    """(H, W): the mask from the CAM alone."""
    mask_walk: Mask | None = None
    """(H, W): the mask after the walk, before the dCRF."""
    mask_network: Mask | None = None
    """(H, W): the mask of the segmentation network that was trained on these masks."""
    truth: Mask | None = None
    """(H, W): the true mask."""
    cam: Floats | None = None
    """(K, h, w) in [0, 1]."""
    walked: Floats | None = None
    """(K, h, w) in [0, 1]: the class maps after the walk."""
    cam_classes: Sequence[str] = ()
    """The K names of the maps in ``cam`` and ``walked``."""
    confidence: float | None = None
    """In [0, 1]."""
    iou: float | None = None
    """Mean IoU of this image against its truth, in [0, 1]."""
    error: str | None = None
    """``stage: reason``."""
    missing_tags: Sequence[str] = ()
    """Tags of which the mask holds no pixel."""
    object_fraction: float | None = None
    """Fraction of the pixels that are an object."""

    def __post_init__(self) -> None:
        for maps in (self.cam, self.walked):
            if maps is not None and len(maps) != len(self.cam_classes):
                raise ValueError(f"cam_classes has {len(self.cam_classes)} names for {len(maps)} maps")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """A whole report. Fractions are in [0, 1]; the report shows them in %."""

    title: str
    """The heading, such as the name of the data set."""
    class_names: Sequence[str]
    """The C names without background; ids from 1."""
    num_images: int
    """Images of the whole run, errors included."""
    images: Sequence[ReportImage] = ()
    """The sample to show, in this order; about 60."""
    miou: Mapping[str, float] | None = None
    """mIoU by stage, in the order of the method: 'cam', 'walk', 'crf', 'segmentation'. None without truth."""
    iou: Mapping[str, Mapping[str, float]] | None = None
    """By stage, then by class name with 'background'; NaN for a class that neither truth nor masks hold."""
    confusion: NDArray[np.integer[Any]] | None = None
    """(C+1, C+1) pixels, rows truth, of the final masks."""
    areas: Sequence[float] | None = None
    """(C+1,) fraction of all pixels in the final masks, background first."""
    missing: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By class, the images tagged with it whose mask holds no pixel of it, and all images tagged with it."""
    confidences: Sequence[float] = ()
    """Of every image with tags: without tags a mask is background by definition, and sure of it."""
    ious: Sequence[float] | None = None
    """The true mean IoU of the same images, in the same order; NaN where there is no truth."""
    best_miou: Sequence[tuple[float, float, float]] | None = None
    """(fraction of the images, lowest confidence among them, their mIoU), most confident first."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By network, rows such as {'step': 10, 'loss': .3}; every other number in a row becomes a chart."""
    error_counts: Mapping[str, int] = field(default_factory=dict)
    """Images that ended in an error, by stage."""
    errors: Sequence[tuple[str, str]] = ()
    """(image_id, ``stage: reason``); the first 200 are listed."""
    images_per_s: float | None = None
    """Of the labeling."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each step of the chain."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings of the run."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages, the weights' hashes, the commit."""
    created: str = ""
    """Date and time, as shown."""
    next_steps: Sequence[tuple[str, str]] = ()
    """(what it does, command): what to do with these masks."""

    def __post_init__(self) -> None:
        num_labels = len(self.class_names) + 1
        if self.ious is not None and len(self.ious) != len(self.confidences):
            raise ValueError(f"ious has {len(self.ious)} values for {len(self.confidences)} confidences")
        if self.confusion is not None and self.confusion.shape != (num_labels, num_labels):
            raise ValueError(f"confusion must have shape {(num_labels, num_labels)}, got {self.confusion.shape}")
        if self.areas is not None and len(self.areas) != num_labels:
            raise ValueError(f"areas must have {num_labels} values, background first, got {len(self.areas)}")
