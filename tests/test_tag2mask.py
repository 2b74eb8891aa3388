"""The public names under the name of the distribution."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import engine
import tag2mask
from tests.conftest import ROOT


def test_every_public_name_is_there_and_listed() -> None:
    assert set(tag2mask.__all__) <= set(dir(tag2mask))
    assert all(getattr(tag2mask, name) is not None for name in tag2mask.__all__)
    assert tag2mask.label_images is engine.label_images
    assert all((tag2mask.ops.crf.dense_crf, tag2mask.ops.metrics.mean_iou, tag2mask.ops.random_walk.refine))


def test_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'tag2mask' has no attribute 'label_image'"):
        tag2mask.label_image  # noqa: B018


def test_importing_it_loads_nothing() -> None:
    code = "import sys, tag2mask; print([name for name in ('engine.config', 'torch', 'ray') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_distribution_holds_every_package_and_its_types() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for name in ("tag2mask", "engine", "jobs", "tune")
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(config["packages"]) == packages
    for name in ("tag2mask", "engine"):
        assert (ROOT / name / "py.typed").exists()
        assert "py.typed" in config["package-data"][name]
