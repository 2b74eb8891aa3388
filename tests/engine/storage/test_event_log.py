"""What TensorBoard would read."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from engine.storage.event_log import EventLog
from engine.storage.filesystem import list_names, read_bytes
from tests.s3_server import S3Server


def _scalars(folder: str) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for name in list_names(folder, prefix="events.out.tfevents"):
        data, place = read_bytes(f"{folder}/{name}"), 0
        while place < len(data):
            (size,) = struct.unpack("<Q", data[place : place + 8])
            event = Event.FromString(data[place + 12 : place + 12 + size])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            place += 16 + size
    return found


def _write(folder: str) -> dict[tuple[str, int], float]:
    with EventLog(folder) as log:
        log.add(1, {"training/loss": 0.5})
        log.add(2, {"training/loss": 0.25, "training/waiting": 0.0})
    with EventLog(folder) as log:  # a run that goes on
        log.add(3, {"validation/miou": 0.75})
    return {
        ("training/loss", 1): 0.5,
        ("training/loss", 2): 0.25,
        ("training/waiting", 2): 0.0,
        ("validation/miou", 3): 0.75,
    }


def test_numbers_of_all_blocks_lie_in_event_files(tmp_path: Path) -> None:
    expected = _write(str(tmp_path / "out" / "tensorboard"))
    assert _scalars(str(tmp_path / "out" / "tensorboard")) == expected


@pytest.mark.s3
def test_event_files_are_copied_to_a_bucket(s3: S3Server) -> None:
    folder = s3.make_bucket(f"events-{uuid.uuid4().hex[:12]}") + "/tensorboard"
    expected = _write(folder)
    assert _scalars(folder) == expected
