"""Labeling in memory, without Ray."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

import engine
from engine.config import Settings
from engine.errors import ConfigError, WeightsError
from engine.imaging.codecs import encode_picture
from engine.presets import preset
from tests.engine.stages.examples import CLASS_NAMES, picture, write_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {kind: write_network(tmp_path_factory.mktemp(kind), kind) for kind in ("cam", "affinity")}


def _settings(num_steps: int = 8) -> Settings:
    tiny = preset("tiny")
    return replace(tiny, walk=replace(tiny.walk, num_steps=num_steps), crf=replace(tiny.crf, num_iterations=2))


def _mask(result: engine.LabeledImage) -> NDArray[Any]:
    assert result.mask is not None
    return result.mask


def test_arrays_paths_and_pillow_images_give_the_same_mask(weights: dict[str, Any], tmp_path: Path) -> None:
    image = picture(60, 80)
    Image.fromarray(image).save(tmp_path / "image.png")
    results = engine.label_images(
        [image, str(tmp_path / "image.png"), tmp_path / "image.png", Image.fromarray(image)],
        [["cat", "bird"]] * 4,
        **weights,
        settings=_settings(),
    )
    for result in results:
        assert result.error is None
        assert result.mask is not None
        assert result.mask.shape == (60, 80)
        assert set(np.unique(result.mask)) <= {0, 1, 3}
        np.testing.assert_array_equal(result.mask, _mask(results[0]))
        assert list(result.areas) == ["background", "cat", "bird"]
        assert sum(result.areas.values()) == pytest.approx(1, abs=1e-5)
    assert results[0].class_names == CLASS_NAMES


def test_opened_picture_is_seen_as_its_file_is(weights: dict[str, Any], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(picture(60, 80)).save(tmp_path / "turned.png", exif=exif)
    see_through = np.dstack([picture(60, 80), picture(60, 80, 1)[:, :, 0]])
    Image.fromarray(see_through).save(tmp_path / "see-through.png")
    Image.fromarray(picture(60, 80)[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("turned.png", "see-through.png", "deep.png"):
        location = tmp_path / name
        opened, read = engine.label_images(
            [Image.open(location), location], [["cat", "bird"]] * 2, **weights, settings=_settings()
        )
        assert opened.mask is not None
        assert read.mask is not None
        assert opened.mask.shape == ((80, 60) if name == "turned.png" else (60, 80))
        assert np.array_equal(opened.mask, read.mask)
        assert opened.confidence == read.confidence


def test_local_refinement_in_the_place_of_the_dcrf_gives_other_probabilities(weights: dict[str, Any]) -> None:
    without = replace(_settings(), crf=replace(_settings().crf, num_iterations=0))
    refined = replace(without, pamr=replace(without.pamr, num_iterations=5, long_side_px=64))
    before, after = (
        engine.label_images([picture(60, 80)], [["cat", "bird"]], **weights, settings=settings)[0]
        for settings in (without, refined)
    )
    assert after.error is None
    assert after.mask is not None
    assert after.mask.shape == (60, 80)
    assert after.confidence != before.confidence


def test_segmentation_network_in_the_place_of_the_classifier_takes_the_settings_of_a_second_round(
    weights: dict[str, Any], tmp_path: Path
) -> None:
    segmentation = write_network(tmp_path, "segmentation")
    settings = replace(_settings(), later_walk=replace(_settings().later_walk, alpha=1.0, num_steps=0))
    (result,) = engine.label_images([picture(60, 80)], [["cat"]], cam=segmentation, settings=settings)
    assert result.error is None
    assert result.mask is not None
    assert set(np.unique(result.mask)) <= {0, 1}
    with pytest.raises(ConfigError, match="affinity is missing"):
        engine.label_images([picture(60, 80)], [["cat"]], cam=segmentation, settings=_settings(num_steps=0))
    looked = [
        engine.label_images([picture(60, 80)], [["cat"]], cam=segmentation, settings=other)[0].confidence
        for other in (
            replace(settings, cam=replace(settings.cam, inference=replace(settings.cam.inference, scales=(3.0,)))),
            replace(settings, later_maps=replace(settings.later_maps, scales=(3.0,))),
        )
    ]
    assert looked[0] == result.confidence != looked[1]


def test_image_that_cannot_be_labeled_costs_no_other(weights: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"<html>not here</html>")
    good = picture(48, 64)
    floats: Any = good.astype(np.float32)
    images = [str(tmp_path / "missing.jpg"), str(tmp_path / "broken.jpg"), good, floats, good]
    tags = [["cat"], ["cat"], ["cat"], ["cat"], ["unicorn"]]
    results = engine.label_images(images, tags, **weights, settings=_settings())
    assert [(result.error or "fine").split(":")[0] for result in results] == [
        "fetch",
        "decode",
        "fine",
        "decode",
        "tags",
    ]
    (alone,) = engine.label_images([good], [["cat"]], **weights, settings=_settings())
    np.testing.assert_array_equal(_mask(alone), _mask(results[2]))


def test_opened_image_that_is_damaged_costs_no_other(weights: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    png = encode_picture(noise)
    second = png.index(b"IDAT", png.index(b"IDAT") + 4)  # Pillow finds neither fault before it decodes
    renamed = png[:second] + b"\0\0\0\0" + png[second + 4 :]
    images = [Image.open(io.BytesIO(file)) for file in (renamed, png[: len(png) // 2])]
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(renamed)).load()
    results = engine.label_images([*images, picture(48, 64)], [["cat"]] * 3, **weights, settings=_settings())
    assert [result.error and result.error.split(" (")[0] for result in results] == [
        "decode: broken PNG file",
        "decode: image file is truncated",
        None,
    ]
    assert results[2].mask is not None


def test_image_without_tags_is_all_background(weights: dict[str, Any]) -> None:
    (result,) = engine.label_images([picture(48, 64)], [[]], **weights, settings=_settings())
    assert result.mask is not None
    assert not result.mask.any()
    assert result.areas == {"background": 1.0}


def test_walk_needs_affinities_and_its_absence_does_not(weights: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="affinity is missing"):
        engine.label_images([picture(48, 64)], [["cat"]], cam=weights["cam"], settings=_settings())
    (result,) = engine.label_images([picture(48, 64)], [["cat"]], cam=weights["cam"], settings=_settings(num_steps=0))
    assert result.mask is not None


def test_mistakes_are_said_before_anything_runs(weights: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^tags must have an entry for each of the 1 images, got 2$"):
        engine.label_images([picture(48, 64)], [["cat"], ["dog"]], **weights)
    with pytest.raises(WeightsError, match="kind 'affinity'"):
        engine.label_images([picture(48, 64)], [["cat"]], cam=weights["affinity"], affinity=weights["cam"])


def test_importing_the_engine_starts_and_loads_nothing() -> None:
    code = "import engine, sys; print([name for name in ('torch', 'ray', 'pyarrow', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
