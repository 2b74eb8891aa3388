"""Writing an image's files: whose fault it is when that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import StoreUnavailableError
from tests.engine.export.examples import Labeled, export, jpeg, ring


def test_place_that_takes_no_file_is_no_images_fault(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file where a folder is needed")
    item = Labeled(image_id="a.jpg", mask=ring(), encoded=jpeg(40, 60))
    with pytest.raises(StoreUnavailableError):
        export(str(tmp_path / "out"), "png", [item])
