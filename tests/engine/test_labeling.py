"""Labeling in memory, without Ray."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

import engine
from engine.config import AffinityInferenceConfig, Settings
from engine.errors import ConfigError, UserError
from engine.imaging.codecs import encode_picture
from engine.presets import preset
from engine.runs.options import DataOptions
from engine.runs.output import run_record
from engine.storage.dataset import MaskDataset, MaskStream
from engine.storage.run_record import SYNONYMS, VALUE_RANGE, amend_record, write_json
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


WRONG_USES: dict[str, tuple[Callable[[dict[str, Any], Path], object], str]] = {
    "no network": (lambda w, _: engine.Labeler(), "run or cam must be given, but not both"),
    "no such run": (lambda w, _: engine.Labeler("nowhere"), "run 'nowhere' holds no trained networks; give the output"),
    "folder of another kind": (lambda w, tmp: engine.Labeler(tmp), "holds no trained networks; give the output folder"),
    "no such network": (
        lambda w, _: engine.Labeler(cam="nowhere"),
        "cam .*nowhere/weights.safetensors' does not exist",
    ),
    "wrong network": (lambda w, _: engine.Labeler(cam=w["affinity"]), "holds a network of kind 'affinity', not 'cam'"),
    "number for a folder": (lambda w, _: engine.Labeler(cam=cast(Any, 3)), "^cam must be a path or a URI, got 3$"),
    "URI in a Path": (
        lambda w, _: engine.Labeler(cam=Path("s3://b/cam")),
        "cam is a URI in a Path, .*; pass it as a str",
    ),
    "no such preset": (lambda w, _: engine.Labeler(**w, settings="huge"), "preset must be one of tiny, .*, got 'huge'"),
    "settings as a dict": (
        lambda w, _: engine.Labeler(**w, settings=cast(Any, {})),
        r"settings must be Settings, auto, or the name of a preset \(tiny, .*\), got dict",
    ),
    "one image": (
        lambda w, _: engine.label_images("dog.jpg", [["cat"]], **w),
        r"images must be a list of images, got a single image; put it in a list",
    ),
    "one array": (lambda w, _: engine.label_images(cast(Any, picture(8, 8)), [["cat"]], **w), "images must be a list"),
    "names for a list of lists": (
        lambda w, _: engine.label_images(["dog.jpg"], ["cat"], **w),
        r"tags must hold a list of names for each image, such as .*, got \['cat'\]",
    ),
    "too many tags": (
        lambda w, _: engine.label_images(["dog.jpg"], [["cat"], ["dog"]], **w),
        "^tags must have an entry for each of the 1 images, got 2$",
    ),
    "no pixels": (lambda w, _: engine.Labeler(**w, max_pixels=0), "max_pixels must be 1 or more, got 0"),
    "masks that are none": (lambda w, tmp: MaskDataset(tmp), "masks '.*' holds no masks; give the output folder of"),
    "confidence in percent": (
        lambda w, tmp: MaskStream(tmp, min_confidence=50),
        "min_confidence must be from 0 to 1, got 50",
    ),
}


@pytest.mark.parametrize("name", WRONG_USES)
def test_wrong_use_is_said_in_one_sentence(name: str, weights: dict[str, Any], tmp_path: Path) -> None:
    use, sentence = WRONG_USES[name]
    with pytest.raises(UserError, match=sentence) as refused:
        use(weights, tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def _trained(place: Path, kind: str, settings: Settings) -> Path:
    """A network as a training job leaves it."""
    place.mkdir(parents=True)
    write_network(place, kind)
    options = DataOptions(out=str(place), data="m.csv", settings=settings)
    write_json(str(place / "run.json"), run_record("train", options, uses=(), inputs={}, class_names=CLASS_NAMES))
    return place


def test_networks_are_used_with_the_settings_that_they_were_made_with(tmp_path: Path) -> None:
    settings = _settings()
    other = replace(settings, affinity=replace(settings.affinity, inference=AffinityInferenceConfig(long_side_px=64)))
    cam, affinity = _trained(tmp_path / "cam", "cam", settings), _trained(tmp_path / "affinity", "affinity", other)
    used = replace(engine.Labeler(cam=cam, affinity=affinity).settings, resources=other.resources)
    assert used == other
    arguments: dict[str, Any] = {
        "images": [picture(60, 80)],
        "tags": [["cat", "bird"]],
        "cam": cam,
        "affinity": affinity,
    }
    (by_record,), (by_hand,) = engine.label_images(**arguments), engine.label_images(**arguments, settings=other)
    assert by_record.confidence == by_hand.confidence
    np.testing.assert_array_equal(_mask(by_record), _mask(by_hand))
    assert engine.Labeler(cam=cam, affinity=affinity, settings="paper").settings.walk == preset("paper").walk


def test_images_are_seen_and_tags_are_read_as_the_network_was_trained(tmp_path: Path) -> None:
    cam, affinity = (_trained(tmp_path / kind, kind, _settings()) for kind in ("cam", "affinity"))
    amend_record(str(cam), {VALUE_RANGE: [0.0, 4095.0], SYNONYMS: {"kitten": "cat"}}, hidden=False)
    gray = picture(60, 80)[..., 0]
    Image.fromarray(np.rint(gray.astype(np.float64) / 255 * 4095).astype(np.uint16)).save(tmp_path / "12-bits.png")
    arguments: dict[str, Any] = {"cam": cam, "affinity": affinity}
    (found,) = engine.label_images([tmp_path / "12-bits.png"], [["kitten", "cat"]], **arguments)
    (expected,) = engine.label_images([np.stack([gray] * 3, axis=-1)], [["cat"]], **arguments)
    assert found.confidence == expected.confidence
    np.testing.assert_array_equal(_mask(found), _mask(expected))
    given = replace(_settings(), value_range=(0, 65535))
    (dark,) = engine.label_images([tmp_path / "12-bits.png"], [["cat"]], **arguments, settings=given)
    assert dark.confidence != expected.confidence


def test_labeler_takes_the_networks_of_a_run_and_keeps_them(tmp_path: Path) -> None:
    _trained(tmp_path / "cam", "cam", _settings())
    _trained(tmp_path / "affinity", "affinity", _settings())
    first = engine.Labeler(tmp_path)
    assert first.class_names == CLASS_NAMES
    image, tags = picture(60, 80), ["cat", "bird"]
    (alone,) = engine.label_images([image], [tags], cam=tmp_path / "cam", affinity=str(tmp_path / "affinity"))
    for kind in ("cam", "affinity"):
        (tmp_path / kind / "weights.safetensors").unlink()
    for _ in range(2):
        (result,) = first.label([image], [tags])
        np.testing.assert_array_equal(_mask(result), _mask(alone))
    (tmp_path / "segmentation").mkdir()
    write_network(tmp_path / "segmentation", "segmentation")
    write_network(tmp_path / "affinity", "affinity")
    (later,) = engine.Labeler(tmp_path).label([image], [tags])
    (same,) = engine.label_images([image], [tags], cam=tmp_path / "segmentation", affinity=tmp_path / "affinity")
    assert later.confidence == same.confidence != alone.confidence


def test_importing_the_engine_starts_and_loads_nothing() -> None:
    code = "import engine, sys; print([name for name in ('torch', 'ray', 'pyarrow', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
