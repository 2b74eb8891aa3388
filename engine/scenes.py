"""Generate synthetic tagged scenes with true masks, for the demo and for tests.

They pose the problem that the method solves. Each object has a discriminative head, with a pattern that is unique to
its class, and a larger, plain body, whose color is independent of the class. A classifier activates on the heads only,
so masks are right only if its activation is spread over the bodies. Letters: (H, W) pixels.
"""

from __future__ import annotations

import colorsys
import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.errors import ConfigError, OutputError, StorageError
from engine.imaging.codecs import encode_mask

CLASS_NAMES = ("striped", "spotted", "checkered", "starred", "ringed")
"""The classes, ids 1..5, named after the pattern of the head."""
SETTINGS_FILE = "scenes.json"
"""File with the settings of a folder of scenes; marks the folder as generated here."""

_VERSION = 1  # of the drawing code: a new version regenerates the scenes
_EMPTY_FRACTION = 0.05
_TOUCHING_FRACTION = 0.3
_JPEG_QUALITY = 92
_SMALLEST_SIDE_PX = 96
_REFERENCE_AREA = 240 * 180  # heads and textures are designed for this size and scale with the image

Floats = NDArray[np.floating[Any]]
Rng = np.random.Generator


def make_scene(
    rng_seed: int, index: int, *, width: int = 240, height: int = 180
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Draw one scene; the same arguments give the same pixels.

    Args:
        rng_seed: seed of the set, 0 or more.
        index: number of the scene in the set, 0 or more.
        width: pixels, 96 or more.
        height: pixels, 96 or more.

    Returns:
        The image (H, W, 3) uint8, its true mask (H, W) uint8 with ids of :data:`CLASS_NAMES` from 1 and 0 for
        background, and the tags: the names of the classes in the mask, in the order of their ids.

    Raises:
        ConfigError: an argument is out of its range.
    """
    for name, value, least in (
        ("rng_seed", rng_seed, 0),
        ("index", index, 0),
        ("width", width, _SMALLEST_SIDE_PX),
        ("height", height, _SMALLEST_SIDE_PX),
    ):
        if value < least:
            raise ConfigError(f"must be {least} or more, got {value}", thing=name)
    rng = np.random.default_rng([rng_seed, index])
    ground_colors = _ground_colors(rng)
    canvas = _background(rng, height, width, ground_colors)
    mask = np.zeros((height, width), np.uint8)
    if rng.random() >= _EMPTY_FRACTION:
        _draw_objects(rng, canvas, mask, ground_colors)
    canvas *= 1 + 0.12 * _smooth_noise(rng, height, width, 120.0)[..., None]  # uneven light
    canvas += rng.normal(0, 4.0, canvas.shape).astype(np.float32)
    tags = [CLASS_NAMES[class_id - 1] for class_id in np.unique(mask) if class_id > 0]
    return np.clip(canvas, 0, 255).astype(np.uint8), mask, tags


def write_scenes(
    folder: str | Path, num_images: int, *, rng_seed: int = 0, width: int = 240, height: int = 180
) -> dict[str, Any]:
    """Write scenes with their manifest, classes and truth, unless the folder already holds them.

    Writes ``images/*.jpg``, ``truth/*.png`` (named by image stem), ``classes.txt``, ``manifest.csv`` and
    ``scenes.json``. Scenes with other settings and incomplete sets are regenerated.

    Args:
        folder: created if it does not exist.
        num_images: 1 or more.
        rng_seed: seed of the set, 0 or more.
        width: pixels, 96 or more.
        height: pixels, 96 or more.

    Returns:
        ``manifest``, ``truth`` (paths), ``images`` and ``written`` (False if they already existed).

    Raises:
        ConfigError: an argument is out of its range.
        OutputError: the folder holds files other than scenes.
        StorageError: the folder cannot be written.
    """
    if num_images < 1:
        raise ConfigError(f"must be 1 or more, got {num_images}", thing="num_images")
    folder = Path(folder)
    settings = dict(version=_VERSION, num_images=num_images, rng_seed=rng_seed, width=width, height=height)
    summary = dict(manifest=str(folder / "manifest.csv"), truth=str(folder / "truth"), images=num_images)
    try:
        if _settings_of(folder) == {**settings, "complete": True}:
            return {**summary, "written": False}
        make_scene(rng_seed, 0, width=width, height=height)  # raises for a bad setting before anything is removed
        for name in ("images", "truth"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
        # written first and completed last, so that an incomplete set is recognized and regenerated
        (folder / SETTINGS_FILE).write_text(json.dumps({**settings, "complete": False}))
        rows = io.StringIO()
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(["image", "tags"])
        for index in range(num_images):
            image, mask, tags = make_scene(rng_seed, index, width=width, height=height)
            stem = f"scene_{index:05d}"
            Image.fromarray(image).save(folder / "images" / f"{stem}.jpg", quality=_JPEG_QUALITY)
            (folder / "truth" / f"{stem}.png").write_bytes(encode_mask(mask))
            table.writerow([f"images/{stem}.jpg", ";".join(tags)])
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASS_NAMES))
        (folder / "manifest.csv").write_text(rows.getvalue())
        (folder / SETTINGS_FILE).write_text(json.dumps({**settings, "complete": True}))
    except OSError as error:
        raise StorageError(f"'{folder}' cannot be written ({error.strerror or error})", thing="out") from error
    return {**summary, "written": True}


def _settings_of(folder: Path) -> object:
    """The settings of the scenes in a folder; None for an empty folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    mark = folder / SETTINGS_FILE
    if not mark.is_file():
        raise OutputError(
            f"'{folder}' holds files other than synthetic scenes; give a new or empty folder", thing="out"
        )
    try:
        return json.loads(mark.read_text())
    except ValueError:
        return None


# --- colors and textures ----------------------------------------------------------------------------------------------


def _hsv(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32) * 255


def _smooth_noise(rng: Rng, height: int, width: int, cell_px: float) -> Floats:
    """Noise (H, W) of about [-1, 1] whose features are ``cell_px`` wide."""
    rows, columns = max(2, math.ceil(height / cell_px) + 1), max(2, math.ceil(width / cell_px) + 1)
    coarse = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _ground_colors(rng: Rng) -> Floats:
    """Two related, rather dull colors (2, 3) for a background."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.08, 0.42), rng.uniform(0.3, 0.85)
    other = np.clip(value + rng.choice([-1, 1]) * rng.uniform(0.1, 0.22), 0.15, 0.95)
    return np.stack([_hsv(hue, saturation, value), _hsv(hue + rng.uniform(-0.08, 0.08), saturation, float(other))])


def _mix(colors: Floats, weight: Floats) -> Floats:
    mixed: Floats = colors[0] + (colors[1] - colors[0]) * np.clip(weight, 0, 1)[..., None]
    return mixed


def _background(rng: Rng, height: int, width: int, colors: Floats) -> Floats:
    scale = math.sqrt(height * width / _REFERENCE_AREA)
    kinds: list[Callable[..., Floats]] = [_gradient, _stripes, _blobs, _grass]
    canvas = kinds[rng.integers(len(kinds))](rng, height, width, colors, scale)
    fine = _smooth_noise(rng, height, width, 2.5 * scale)
    return canvas * (1 + 0.06 * fine[..., None])


def _gradient(rng: Rng, height: int, width: int, colors: Floats, scale: float) -> Floats:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle) + 0.5
    return _mix(colors, along + 0.35 * _smooth_noise(rng, height, width, 14 * scale))


def _stripes(rng: Rng, height: int, width: int, colors: Floats, scale: float) -> Floats:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(12, 26) * scale
    wobble = _smooth_noise(rng, height, width, 40 * scale) * period * 0.35
    wave = np.sin((x * math.cos(angle) + y * math.sin(angle) + wobble) * (2 * math.pi / period))
    return _mix(colors, 0.5 + 0.9 * wave)


def _blobs(rng: Rng, height: int, width: int, colors: Floats, scale: float) -> Floats:
    field = _smooth_noise(rng, height, width, rng.uniform(12, 22) * scale)
    return _mix(colors, 0.5 + 3.0 * field)


def _grass(rng: Rng, height: int, width: int, colors: Floats, scale: float) -> Floats:
    ground = _mix(colors, 0.5 + 0.5 * _smooth_noise(rng, height, width, 30 * scale))
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    num_blades = int(height * width / (55 * scale * scale))
    starts = rng.uniform((0, 0), (width, height * 1.1), (num_blades, 2))
    leans = rng.normal(0, 3.0 * scale, num_blades)
    lengths = rng.uniform(6, 17, num_blades) * scale
    shades = _mix(colors, rng.uniform(0, 1, num_blades).astype(np.float32)) * rng.uniform(0.8, 1.15, (num_blades, 1))
    for (x, y), lean, length, shade in zip(starts, leans, lengths, np.clip(shades, 0, 255).astype(int), strict=True):
        pen.line([(x, y), (x + lean, y - length)], fill=tuple(map(int, shade)), width=max(1, round(1.3 * scale)))
    return np.asarray(picture).astype(np.float32)


# --- objects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Object:
    class_id: int
    body: Floats  # (H, W), the signed distance to the outline in pixels, negative inside; head and tail included
    head: Floats  # (H, W), the same for the head alone
    u: Floats  # (H, W), coordinates relative to the head: 1 at its rim
    v: Floats


def _draw_objects(rng: Rng, canvas: Floats, mask: NDArray[np.uint8], ground_colors: Floats) -> None:
    num_objects = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    num_classes = min(num_objects, int(rng.choice([1, 2], p=[0.4, 0.6])))
    kinds = rng.choice(len(CLASS_NAMES), num_classes, replace=False) + 1
    class_ids = [int(kinds[number % num_classes]) for number in range(num_objects)]
    least, most = {1: (0.13, 0.3), 2: (0.09, 0.16), 3: (0.065, 0.105)}[num_objects]
    taken = np.zeros(mask.shape, bool)
    used_colors = ground_colors
    touching = rng.random() < _TOUCHING_FRACTION
    for class_id in class_ids:
        thing = _place(rng, class_id, float(rng.uniform(least, most)), taken, touching=touching)
        if thing is None:
            continue
        color = _body_color(rng, used_colors)
        used_colors = np.concatenate([used_colors, color[None]])
        _paint(rng, canvas, thing, color)
        inside = thing.body < 0
        mask[inside] = class_id
        taken |= inside


def _body_color(rng: Rng, others: Floats) -> Floats:
    """A color that contrasts with the background and the bodies drawn so far, independent of the class."""
    best, best_distance = np.zeros(3, np.float32), -1.0
    for _ in range(30):
        color = _hsv(rng.uniform(), rng.uniform(0.3, 0.85), rng.uniform(0.3, 1.0))
        distance = float(np.linalg.norm(others - color, axis=1).min())
        if distance > 105:
            return color
        if distance > best_distance:
            best, best_distance = color, distance
    return best


def _place(rng: Rng, class_id: int, fraction: float, taken: NDArray[np.bool_], *, touching: bool) -> _Object | None:
    """Place an object in free space, or at the best position tried; None if each would cover another object."""
    best, best_cost = None, math.inf
    border = np.ones(taken.shape, bool)
    border[2:-2, 2:-2] = False
    for _ in range(14):
        thing = _shape(rng, class_id, fraction, taken.shape)
        inside = thing.body < 0
        overlap = float((inside & taken).sum()) / max(1, inside.sum())
        cut = float((inside & border).sum()) / max(1, border.sum())
        gap = float(thing.body[taken].min()) if taken.any() else 0.0
        cost = 8 * overlap + 4 * cut + (0.01 * max(0.0, gap - 1) if touching else 0.0)
        if not touching and taken.any():
            cost += 0.02 * max(0.0, 6 - gap)
        if cost < best_cost and overlap < 0.12:
            best, best_cost = thing, cost
        if best_cost < 0.04:
            break
    return best


def _shape(rng: Rng, class_id: int, fraction: float, size: tuple[int, ...]) -> _Object:
    height, width = size
    scale = math.sqrt(height * width / _REFERENCE_AREA)
    ratio = rng.uniform(1.15, 1.8)
    half_width = math.sqrt(fraction * height * width / (math.pi * ratio)) * 0.94  # the head and tail add the rest
    half_length = half_width * ratio
    head_radius = float(np.clip(half_width * rng.uniform(0.5, 0.62), 13 * scale, 23 * scale))
    margin = half_width * 0.9
    center_x = rng.uniform(min(margin, width / 2), max(width - margin, width / 2))
    center_y = rng.uniform(min(margin, height / 2), max(height - margin, height / 2))
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - np.float32(center_x), y - np.float32(center_y)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)

    turn = np.arctan2(across / half_width, along / half_length)
    waves = sum(
        rng.uniform(0.2, 1) * 0.09 / order * np.cos(order * turn + rng.uniform(0, 2 * math.pi)) for order in (2, 3, 5)
    )
    power = rng.uniform(1.9, 2.8)  # 2 is an ellipse, more a rounded box
    reach = (np.abs(along / half_length) ** power + np.abs(across / half_width) ** power) ** (1 / power)
    body = (reach - 1 - waves) * half_width
    if rng.random() < 0.6:  # a tail, as plain as the body
        tip = half_length * rng.uniform(1.25, 1.5)
        bend = rng.uniform(-0.7, 0.7) * half_width
        body = np.minimum(body, _capsule(along, across, (-0.7 * half_length, 0.0), (-tip, bend), 0.2 * half_width))

    # the head sits at the front end, most of it within the body's outline
    nod = rng.uniform(-0.35, 0.35) * half_width
    head_along, head_across = along - np.float32(half_length - 0.55 * head_radius), across - np.float32(nod)
    head = np.hypot(head_along, head_across) - head_radius
    spin = rng.uniform(0, 2 * math.pi)
    u = (head_along * math.cos(spin) + head_across * math.sin(spin)) / head_radius
    v = (head_across * math.cos(spin) - head_along * math.sin(spin)) / head_radius
    outline = np.minimum(body, head)
    return _Object(
        class_id=class_id,
        body=outline.astype(np.float32),
        head=head.astype(np.float32),
        u=u.astype(np.float32),
        v=v.astype(np.float32),
    )


def _capsule(x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float], radius: float) -> Floats:
    """Signed distance to a stroke with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    part = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    distance: Floats = np.hypot(x - start[0] - part * dx, y - start[1] - part * dy) - radius
    return distance


def _paint(rng: Rng, canvas: Floats, thing: _Object, color: Floats) -> None:
    height, width = thing.body.shape
    scale = math.sqrt(height * width / _REFERENCE_AREA)
    cover = np.clip(0.5 - thing.body, 0, 1)[..., None]
    texture = 0.09 * _smooth_noise(rng, height, width, rng.uniform(5, 18) * scale)
    light = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    slope = 0.45 * (x * math.cos(light) + y * math.sin(light))
    rim = 0.22 * np.exp(np.minimum(thing.body, 0) / (5 * scale))  # darker toward the outline, as on a round object
    paint = color * (1.04 + texture + slope - rim)[..., None]

    ground = 0.35 * color + 0.65 * np.array([250, 246, 235], np.float32)
    hue, ink = _INKS[thing.class_id]
    pattern_color = _hsv(hue + rng.uniform(-0.03, 0.03), rng.uniform(0.8, 1.0), ink * rng.uniform(0.85, 1.0))
    weight = _PATTERNS[thing.class_id](thing.u, thing.v)
    weight = np.clip(0.5 + weight * 3.0, 0, 1)[..., None]
    head_paint = (ground + (pattern_color - ground) * weight) * (1.0 + slope - 0.6 * rim)[..., None]
    head_cover = np.clip(0.5 - thing.head, 0, 1)[..., None]
    paint = paint + (head_paint - paint) * head_cover
    # a soft shadow around the object keeps its outline visible on any background
    canvas *= (1 - 0.18 * np.exp(-np.maximum(thing.body, 0) / (3 * scale)))[..., None]
    canvas += (paint - canvas) * cover


def _stripe_pattern(u: Floats, v: Floats) -> Floats:
    weight: Floats = np.sin(u * 9.5) * 0.6
    return weight


def _spot_pattern(u: Floats, v: Floats) -> Floats:
    nearest = np.hypot(u, v)
    for step in range(6):
        angle = step * math.pi / 3
        nearest = np.minimum(nearest, np.hypot(u - 0.62 * math.cos(angle), v - 0.62 * math.sin(angle)))
    return (0.2 - nearest) * 2.5


def _check_pattern(u: Floats, v: Floats) -> Floats:
    weight: Floats = np.sin(u * 6.5) * np.sin(v * 6.5) * 1.2
    return weight


def _star_pattern(u: Floats, v: Floats) -> Floats:
    radius, turn = np.hypot(u, v), np.arctan2(v, u)
    fold = np.abs(np.mod(turn * 5 / (2 * math.pi), 1.0) - 0.5) * 2  # 1 at a point, 0 at a notch
    return (0.36 + 0.56 * fold**1.4 - radius) * 2.5


def _ring_pattern(u: Floats, v: Floats) -> Floats:
    return np.cos(np.hypot(u, v) * 9.4) * 0.6


_PATTERNS: dict[int, Callable[[Floats, Floats], Floats]] = {
    1: _stripe_pattern,
    2: _spot_pattern,
    3: _check_pattern,
    4: _star_pattern,
    5: _ring_pattern,
}
_INKS = {1: (0.0, 0.75), 2: (0.75, 0.35), 3: (0.6, 0.25), 4: (0.1, 0.95), 5: (0.38, 0.5)}  # hue, value
