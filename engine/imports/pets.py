"""Import the Oxford-IIIT Pet data set as torchvision stores it: breeds from file names, true masks from trimaps.

Source: Parkhi et al., Cats and Dogs, CVPR 2012; ``torchvision.datasets.OxfordIIITPet``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.errors import StorageError, first_line
from engine.imaging.codecs import decode_mask, encode_mask
from engine.imports.found import Image, ImportedDataset, ReaderOptions
from engine.imports.remarks import Remarks
from engine.records import IGNORE
from engine.storage.filesystem import exists, join, list_names, read_bytes, stem, write_bytes

TRUTH = "truth"
"""Folder of the true masks, inside the output folder."""
_FOLDER = "oxford-iiit-pet"
_PET, _BACKGROUND = 1, 2
"""Values of a trimap; 3, the border, is ignored."""


def download_pets(folder: str) -> None:
    """Download the data set (800 MB) into a local folder, unless it is already there.

    Raises:
        StorageError: The download failed.
    """
    from torchvision.datasets import OxfordIIITPet

    try:
        OxfordIIITPet(folder, target_types="segmentation", download=True)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"cannot be downloaded ({first_line(error)})") from error


def read_pets(source: str, options: ReaderOptions) -> ImportedDataset:
    """Read the images, each tagged with its breed, and write their true masks to ``truth`` in ``options.out``.

    Args:
        source: The folder with ``images`` and ``annotations``, or the root folder given to torchvision.
        options: Only ``out`` is used.

    Raises:
        StorageError: The folder is not the data set. During iteration: a trimap is missing or damaged.
    """
    folder = join(source, _FOLDER) if exists(join(source, _FOLDER, "annotations", "list.txt")) else source
    place = join(folder, "images")
    names = [name for name in list_names(place) if name.endswith(".jpg")]
    if not names:
        raise StorageError(f"'{source}' contains no images; give the folder with {_FOLDER}, or set download")
    breeds = sorted({_breed(name) for name in names})
    remarks = Remarks()

    def found() -> Iterator[Image]:
        for name in names:
            breed = _breed(name)
            trimap = join(folder, "annotations", "trimaps", f"{stem(name)}.png")
            mask = _mask(trimap, 1 + breeds.index(breed))
            write_bytes(join(options.out, TRUTH, f"{stem(name)}.png"), encode_mask(mask))
            yield Image(image_id=stem(name), location=join(place, name), tags=(breed,))

    return ImportedDataset(class_names=tuple(breeds), images=found(), remarks=remarks)


def _breed(name: str) -> str:
    """Extract the breed from names such as ``great_pyrenees_12.jpg``; breeds of cats are capitalized."""
    return stem(name).rpartition("_")[0].replace("_", " ").lower()


def _mask(trimap: str, class_id: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        values = decode_mask(read_bytes(trimap))
    except (SyntaxError, ValueError) as error:
        raise StorageError(f"'{trimap}' is not a readable trimap: {first_line(error)}") from error
    ids = np.full(256, IGNORE, np.uint8)
    ids[[_PET, _BACKGROUND]] = class_id, 0
    return ids[values.astype(np.uint8)]
