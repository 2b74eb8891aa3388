"""tag2mask: segmentation masks for images that have tags only; the public names in one place.

Each name is imported from :mod:`engine` when it is first used, so importing this module loads nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import engine.ops.crf
    import engine.ops.metrics
    import engine.ops.random_walk  # noqa: F401
    from engine import __version__, ops
    from engine.config import Settings
    from engine.errors import UserError
    from engine.labeling import LabeledImage, Labeler, label_images
    from engine.presets import preset
    from engine.storage.dataset import MaskDataset, MaskStream, Sample, collate
    from engine.storage.shards import open_dataset

_MODULES = {
    "LabeledImage": "engine.labeling",
    "Labeler": "engine.labeling",
    "MaskDataset": "engine.storage.dataset",
    "MaskStream": "engine.storage.dataset",
    "Sample": "engine.storage.dataset",
    "Settings": "engine.config",
    "UserError": "engine.errors",
    "__version__": "engine",
    "collate": "engine.storage.dataset",
    "label_images": "engine.labeling",
    "open_dataset": "engine.storage.shards",
    "ops": "engine",
    "preset": "engine.presets",
}
"""Public name to the module that holds it."""
_OPS = ("engine.ops.crf", "engine.ops.metrics", "engine.ops.random_walk")
_PACKAGES = ("engine", "jobs", "tune")

__all__ = [
    "LabeledImage",
    "Labeler",
    "MaskDataset",
    "MaskStream",
    "Sample",
    "Settings",
    "UserError",
    "__version__",
    "collate",
    "label_images",
    "open_dataset",
    "ops",
    "preset",
]


def check_packages(working_folder: str = "") -> None:
    """Whether Python finds the packages that were installed with this one.

    Args:
        working_folder: where Ray's workers look first.

    Raises:
        ImportError: a file or folder of the same name hides one of them.
    """
    root = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        found = spec and spec.origin
        for path in (f"{name}.py", f"{name}/__init__.py"):
            if working_folder and Path(working_folder, path).exists():
                found = str(Path(working_folder, path))
        if not found or Path(found).resolve() != root / name / "__init__.py":
            raise ImportError(f"'{found or name}' hides the package '{name}' of tag2mask; rename it")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tag2mask' has no attribute '{name}'")
    check_packages()
    if name == "ops":
        for module in _OPS:
            importlib.import_module(module)
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
