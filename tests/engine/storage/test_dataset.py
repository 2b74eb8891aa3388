"""Mask shards in PyTorch's own DataLoader."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from engine.errors import StorageError
from engine.imaging.codecs import encode_mask
from engine.storage.dataset import MaskDataset, MaskStream, Sample, collate
from engine.storage.shards import read_shard, write_shard
from tests.engine.export.examples import FOLDER_CLASSES, IDS, ring, upload_labeled_folder, write_labeled_folder
from tests.s3_server import S3Server

GOOD = [image_id for image_id in IDS if image_id != "photos/broken.jpg"]


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_labeled_folder(tmp_path_factory.mktemp("labeled")) / "masks")


def _corner(sample: Sample) -> tuple[str, torch.Tensor, torch.Tensor]:
    return sample.image_id, sample.image[:, :8, :8], sample.mask[:8, :8]


def _image_id(sample: Sample) -> str:
    return sample.image_id


def test_samples_come_by_index_with_image_and_mask(masks: str) -> None:
    found: MaskDataset[Sample] = MaskDataset(masks)
    assert len(found) == 4
    assert found.class_names == FOLDER_CLASSES
    sample = found[1]
    assert (sample.image_id, sample.tags, round(sample.confidence, 3)) == ("../b c.jpg", ("cat",), 0.9)
    assert (sample.image.shape, sample.image.dtype) == ((3, 40, 60), torch.uint8)
    np.testing.assert_array_equal(sample.mask.numpy(), ring(class_id=2))
    with pytest.raises(FileNotFoundError, match=r"4\.jpg' does not exist"):
        found[-1]
    with pytest.raises(IndexError, match="index 4 is out of range"):
        found[4]


def test_masks_come_without_images_and_without_unsure_ones(masks: str) -> None:
    found: MaskDataset[Sample] = MaskDataset(masks, images=False, min_confidence=0.5)
    assert [found[index].image_id for index in range(len(found))] == [GOOD[0], GOOD[1], GOOD[3]]
    assert found[2].image.shape == (3, 0, 0)


def test_two_workers_of_a_loader_give_each_row_once(masks: str) -> None:
    stream = MaskStream(masks, _image_id, images=False)
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(loader) == sorted(GOOD)
    batches = list(DataLoader(MaskDataset(masks, _corner, min_confidence=0.5), batch_size=2, sampler=[0, 1]))
    ids, images, corners = batches[0]
    assert list(ids) == GOOD[:2]
    assert (images.shape, corners.shape) == ((2, 3, 8, 8), (2, 8, 8))


def test_loader_makes_batches_of_samples_by_itself(masks: str) -> None:
    found: MaskDataset[Sample] = MaskDataset(Path(masks))
    (batch,) = DataLoader(found, batch_size=2, sampler=[0, 1], num_workers=1)
    assert batch["image_id"] == GOOD[:2]
    assert batch["tags"] == [found[0].tags, found[1].tags]
    assert torch.equal(batch["mask"], torch.stack([found[0].mask, found[1].mask]))
    assert batch["image"].shape == (2, 3, *found[0].mask.shape)


def test_batch_of_two_sizes_is_padded_with_what_does_not_count() -> None:
    def sample(height: int, width: int) -> Sample:
        image, mask = torch.full((3, height, width), 7, dtype=torch.uint8), torch.ones(height, width, dtype=torch.uint8)
        return Sample(image_id=f"{height}", image=image, mask=mask, tags=("cat",), confidence=0.5)

    batch = collate([sample(2, 5), sample(4, 3)])
    assert (batch["image"].shape, batch["mask"].shape) == ((2, 3, 4, 5), (2, 4, 5))
    for row, (height, width) in enumerate([(2, 5), (4, 3)]):
        outside = torch.ones(4, 5, dtype=torch.bool)
        outside[:height, :width] = False
        assert bool((batch["mask"][row] == torch.where(outside, 255, 1)).all())
        assert bool((batch["image"][row] == torch.where(outside, 0, 7)).all())
    assert batch["confidence"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_divide_the_rows(num_ranks: int, masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for rank in range(num_ranks):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: num_ranks)
        seen += list(MaskStream(masks, _image_id, images=False, shuffle=True))
    assert sorted(seen) == sorted(GOOD)


def test_worker_that_knows_no_process_group_reads_its_ranks_rows(masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for rank in range(2):
        stream = MaskStream(masks, _image_id, images=False)
        with monkeypatch.context() as patch:  # the group is made after the stream
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            patch.setattr(torch.distributed, "get_world_size", lambda: 2)
            sent = pickle.dumps(stream)
        seen += list(pickle.loads(sent))
    assert sorted(seen) == sorted(GOOD)


def test_masks_that_are_opened_again_are_read_again(tmp_path: Path) -> None:
    folder = str(write_labeled_folder(tmp_path) / "masks")
    assert not bool((MaskDataset(folder, images=False)[0].mask == 7).any())
    table = read_shard(folder, 0)
    pictures = [{"bytes": encode_mask(np.full((40, 60), 7, np.uint8)), "path": None}] * table.num_rows
    index = table.schema.get_field_index("mask")
    field = table.schema.field(index)
    write_shard(folder, 0, table.set_column(index, field, pa.array(pictures, field.type)))
    assert bool((MaskDataset(folder, images=False)[0].mask == 7).all())


def test_order_is_another_in_each_epoch_and_the_same_in_each_run(masks: str) -> None:
    def order(epoch: int) -> list[str]:
        stream = MaskStream(masks, _image_id, images=False, shuffle=True)
        stream.set_epoch(epoch)
        return list(stream)

    orders = [order(epoch) for epoch in range(6)]
    assert all(sorted(one) == sorted(GOOD) for one in orders)
    assert len({tuple(one) for one in orders}) > 1
    assert order(3) == orders[3]


def test_masks_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    folder = write_labeled_folder(tmp_path)
    (folder / "masks" / "shard-000001.parquet").unlink()
    with pytest.raises(StorageError, match="lacks 1 of 3 shards"):
        MaskStream(str(folder / "masks"))


@pytest.mark.s3
def test_workers_read_shards_and_images_from_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.make_bucket(f"dataset-{uuid.uuid4().hex[:12]}")
    upload_labeled_folder(write_labeled_folder(tmp_path), bucket)
    found = MaskDataset(f"{bucket}/masks", _corner, min_confidence=0.5)
    assert found[0][0] == GOOD[0]  # this process has spoken to the store before the workers start
    # of the stream the shards are read in the workers; a client from before the fork would wait 30 s
    stream = MaskStream(f"{bucket}/masks", _image_id, images=False)
    assert sorted(DataLoader(stream, batch_size=None, num_workers=2, timeout=20)) == sorted(GOOD)
    loader = DataLoader(found, batch_size=None, sampler=[1, 0], num_workers=2, timeout=20)
    assert [image_id for image_id, _, _ in loader] == [GOOD[1], GOOD[0]]
