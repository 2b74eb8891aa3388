"""WebDataset: ``train/000000.tar ...`` (and ``val/``), with ``.jpg`` or ``.png``, ``.mask.png`` and ``.json`` an image.

Source: github.com/webdataset/webdataset; a sample is the files that share a name up to its first dot. Files wait in the
hidden folder until all images are done; then those of a shard become one tar in each subset.
"""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import groupby
from typing import Any, ClassVar

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask, encode_mask
from engine.storage.filesystem import atomic_file, delete_file, exists, join, read_bytes

_WAITING = ".tag2mask/samples"
_THREADS = 16


class WebDataset:
    """Image and mask (grey, class ids) of each sample, and its tags, confidence and image id as JSON."""

    writes: ClassVar[tuple[str, ...]] = ("train", "val", "classes.txt")
    copies_images: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self._options = options

    def picture_folder(self, subset: Subset) -> str:
        return f"{_WAITING}/images"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        mask = f"{_WAITING}/masks/{item.name}.png"
        about = {"image_id": item.image_id, "tags": item.tags, "confidence": item.confidence}
        # rows as names: a dot in a name would end it
        sample = {"row": item.row, "picture": item.picture, "mask": mask, "json": about}
        return {mask: encode_mask(decode_mask(item.png), grey=True)}, sample

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        size = self._options.rows_per_shard
        with ThreadPoolExecutor(_THREADS) as pool:
            for shard, members in groupby(exported(), key=lambda one: int(one.entry["row"]) // size):
                samples = list(members)
                waiting = [join(self._options.out, one.entry[name]) for one in samples for name in ("picture", "mask")]
                if not exists(waiting[0]):
                    continue  # its tars are complete
                for subset in sorted({one.subset for one in samples}):
                    self._write(shard, subset, [one for one in samples if one.subset == subset], pool)
                list(pool.map(delete_file, waiting[1:]))
                delete_file(waiting[0])
        with open_text("classes.txt") as file:
            file.writelines(f"{name}\n" for name in self._options.class_names)

    def _write(self, shard: int, subset: Subset, samples: Sequence[Exported], pool: Executor) -> None:
        out = self._options.out
        pictures = pool.map(lambda one: read_bytes(join(out, one.entry["picture"])), samples)
        masks = pool.map(lambda one: read_bytes(join(out, one.entry["mask"])), samples)
        with (
            atomic_file(join(out, subset, f"{shard:06d}.tar")) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for one, picture, mask in zip(samples, pictures, masks, strict=True):
                about = json.dumps(one.entry["json"], ensure_ascii=False).encode()
                files = {posixpath.splitext(one.entry["picture"])[1]: picture, ".mask.png": mask, ".json": about}
                for ending, data in files.items():
                    member = tarfile.TarInfo(f"{one.entry['row']:09d}{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
