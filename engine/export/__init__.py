"""Masks in the formats of other programs; each format is one module and one line here."""

from __future__ import annotations

from engine.export.coco import Coco
from engine.export.datasets import Datasets
from engine.export.fiftyone import FiftyOne
from engine.export.format import Exported, Format, FormatOptions, Item, Opener, Subset
from engine.export.label_studio import LabelStudio
from engine.export.names import Naming, plan_names
from engine.export.png import PngFolder
from engine.export.voc import Voc
from engine.export.webdataset import WebDataset
from engine.export.yolo import Yolo

FORMATS: dict[str, type[Format]] = {
    "voc": Voc,
    "coco": Coco,
    "yolo": Yolo,
    "label-studio": LabelStudio,
    "fiftyone": FiftyOne,
    "datasets": Datasets,
    "webdataset": WebDataset,
    "png": PngFolder,
}
"""Every format by its name on the command line."""

__all__ = ["FORMATS", "Exported", "Format", "FormatOptions", "Item", "Naming", "Opener", "Subset", "plan_names"]
