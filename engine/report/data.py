"""The content of a report. Parts that are None or empty are not shown.

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
    """Id as in the manifest."""
    tags: Sequence[str]
    """All tags, including those outside the classes."""
    group: str = ""
    """Why the image was chosen: 'most confident', 'least confident', 'random', 'class dog', 'error'."""
    photograph: NDArray[np.uint8] | None = None
    """(H, W, 3); None if it could not be decoded."""
    mask: Mask | None = None
    """(H, W) class ids of the final mask; None with an error. Its size may differ from the photograph's."""
    mask_cam: Mask | None = None
    """(H, W): the mask from the CAM alone."""
    mask_walk: Mask | None = None
    """(H, W): the mask after the walk, before the dCRF."""
    mask_network: Mask | None = None
    """(H, W): the mask of the segmentation network trained on these masks."""
    truth: Mask | None = None
    """(H, W): the true mask."""
    cam: Floats | None = None
    """(K, h, w) in [0, 1]."""
    walked: Floats | None = None
    """(K, h, w) in [0, 1]: the class maps after the walk."""
    cam_classes: Sequence[str] = ()
    """The K class names of the maps in ``cam`` and ``walked``."""
    confidence: float | None = None
    """In [0, 1]."""
    iou: float | None = None
    """Mean IoU of this image against its truth, in [0, 1]."""
    error: str | None = None
    """``stage: reason``."""
    missing_tags: Sequence[str] = ()
    """Tags without a pixel in the mask."""
    object_fraction: float | None = None
    """Fraction of the pixels that are not background."""

    def __post_init__(self) -> None:
        for maps in (self.cam, self.walked):
            if maps is not None and len(maps) != len(self.cam_classes):
                raise ValueError(f"cam_classes has {len(self.cam_classes)} names for {len(maps)} maps")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """The content of a report. Fractions are in [0, 1]; the report shows them in %."""

    title: str
    """Heading, such as the name of the data set."""
    class_names: Sequence[str]
    """The C names without background; ids start at 1."""
    num_images: int
    """Number of images in the whole run, including errors."""
    images: Sequence[ReportImage] = ()
    """The images to show, in this order; about 60."""
    miou: Mapping[str, float] | None = None
    """mIoU by stage, in the order of the method: 'cam', 'walk', 'crf', 'segmentation'. None without truth."""
    iou: Mapping[str, Mapping[str, float]] | None = None
    """IoU by stage, then by class name, including 'background'; NaN for a class in neither truth nor masks."""
    confusion: NDArray[np.integer[Any]] | None = None
    """(C+1, C+1) pixels, rows truth, of the final masks."""
    areas: Sequence[float] | None = None
    """(C+1,) fraction of all pixels in the final masks, background first."""
    missing: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """For each class, the number of images tagged with it but without a pixel of it, and of all images tagged."""
    confidences: Sequence[float] = ()
    """Confidence of every image with tags; untagged images are all background by definition, with confidence 1."""
    ious: Sequence[float] | None = None
    """The true mean IoU of the same images, in the same order; NaN without a true mask."""
    best_miou: Sequence[tuple[float, float, float]] | None = None
    """(fraction of the images, lowest confidence among them, their mIoU), most confident first."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By network, rows such as {'step': 10, 'loss': .3}; each metric besides the step becomes a chart."""
    error_counts: Mapping[str, int] = field(default_factory=dict)
    """Number of images that ended in an error, by stage."""
    errors: Sequence[tuple[str, str]] = ()
    """(image_id, ``stage: reason``); the first 200 are listed."""
    images_per_s: float | None = None
    """Speed of the labeling."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each step of the chain."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings of the run."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package versions, hashes of the weights, and the commit."""
    inspection: Sequence[str] = ()
    """What is in the data and what is odd about it, a sentence each."""
    created: str = ""
    """Date and time, as text."""
    next_steps: Sequence[tuple[str, str]] = ()
    """(description, command) of suggested commands."""

    def __post_init__(self) -> None:
        num_labels = len(self.class_names) + 1
        if self.ious is not None and len(self.ious) != len(self.confidences):
            raise ValueError(f"ious has {len(self.ious)} values for {len(self.confidences)} confidences")
        if self.confusion is not None and self.confusion.shape != (num_labels, num_labels):
            raise ValueError(f"confusion must have shape {(num_labels, num_labels)}, got {self.confusion.shape}")
        if self.areas is not None and len(self.areas) != num_labels:
            raise ValueError(f"areas must have {num_labels} values, background first, got {len(self.areas)}")
