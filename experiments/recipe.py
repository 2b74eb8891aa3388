"""The authors' recipe on our backbone and images: the row that the engine's own masks are held against.

    python -m benchmarks recipe --out runs/recipe [--data MANIFEST] [--truth FOLDER] [--rng-seed 0] [--pairs authors]

Preset ``paper`` (their schedule in epochs, crops, scales, exponents and dCRF) with the backbone of preset ``small``,
its weights and stride, and its optimizer: at the authors' rates (SGD, .1 and 1) EfficientNet-Lite0's loss is 4e9 after
seven steps. ``--pairs authors`` leaves out the pairs whose first cell lies at the grid's margin, as their code does, in
the loss and in the walk; ``--pairs all`` takes them. Their alphas suit another network's CAM, so those of the seeds and
of the masks are searched, on part ``dev`` of the images (see ``experiments.quality``); what is printed is the mIoU of
both parts, with the alphas of the authors and with those found. The same command goes on after a kill. Two cores take
an hour and a half.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
from torch import Tensor

from benchmarks.runner import PHOTOGRAPHS, Line, parser, report
from engine.config import Settings
from engine.distributed.cluster import connected
from engine.imaging.codecs import decode_map, encode_map, encode_mask
from engine.ops.affinity import PairSets, affinity_loss_sums, affinity_planes, label_planes
from engine.ops.losses import Terms
from engine.plain_settings import merged
from engine.presets import preset
from engine.records import Batch
from engine.storage.filesystem import join, stem
from engine.storage.manifest import iter_manifest
from engine.storage.truth import open_truth
from experiments.quality import in_part
from jobs import make_seeds, train_affinity, train_cam
from tune import search
from tune.cache import StoreDistances

OPTIMIZER = ("optimizer", "learning_rate", "head_learning_rate", "momentum", "weight_decay", "clip_norm")
"""What a backbone needs of its own to learn at all."""
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
SEED_ALPHAS = (0.4, 0.8, 1.2, 2.0, 4.0), (3.0, 4.0, 5.0, 8.0, 12.0, 32.0)
TOP_K_CRF = 3
PARTS = ("dev", "held")


def settings_of(recipe: Settings, small: Settings, rng_seed: int) -> Settings:
    """The authors' settings with the backbone of others and what makes it learn, in float32."""

    def on_backbone(part: Any, other: Any) -> Any:
        learns = {name: getattr(other.training, name) for name in OPTIMIZER}
        training = replace(part.training, precision="float32", rng_seed=rng_seed, **learns)
        inference = replace(part.inference, precision="float32")
        backbone = {"backbone": other.backbone, "weights": other.weights, "stride": other.stride}
        return replace(part, training=training, inference=inference, **backbone)

    return replace(
        recipe,
        cam=on_backbone(recipe.cam, small.cam),
        affinity=on_backbone(recipe.affinity, small.affinity),
        shards=small.shards,
        resources=small.resources,
    )


def margin_free(h: int, w: int, radius: int) -> tuple[slice, slice]:
    """First cells of the pairs that the authors' code keeps (psa, ``get_indices_of_pairs``)."""
    margin = radius - 1
    return slice(0, max(h - margin, 0)), slice(margin, max(w - margin, margin))


def margin_free_terms(features: Tensor, seed: Tensor, *, radius: int, ignore: int) -> Terms:
    """As :func:`engine.ops.losses.affinity_terms`, over the pairs of :func:`margin_free`."""
    rows, columns = margin_free(*seed.shape[1:], radius)
    kept = [chosen[:, :, rows, columns] for chosen in label_planes(seed, radius, ignore)]
    planes = affinity_planes(features.float(), radius)[:, :, rows, columns]
    return affinity_loss_sums(planes, PairSets(*kept))


class MarginFreeDistances(StoreDistances):
    """As its parent; pairs that :func:`margin_free` leaves out have no affinity."""

    def __call__(self, batch: Batch) -> Batch:
        batch = super().__call__(batch)
        for row, encoded in enumerate(batch["distances"]):
            if encoded is not None:
                planes = decode_map(encoded)
                kept = np.full_like(planes, np.inf)
                place = (slice(None), *margin_free(*planes.shape[1:], self._walk.radius))
                kept[place] = planes[place]
                batch["distances"][row] = encode_map(kept)
        return batch


@contextmanager
def pairs_of_the_authors(wanted: bool) -> Iterator[None]:
    """While the block runs, what is sent to Ray's workers leaves out the pairs at the margin."""
    with ExitStack() as stack:
        if wanted:
            stack.enter_context(mock.patch("engine.fitting.objectives.affinity_terms", margin_free_terms))
            stack.enter_context(mock.patch("tune.cache.StoreDistances", MarginFreeDistances))
        yield


def write_parts(data: str, truth: str, folder: Path) -> dict[str, str]:
    """The true masks of part dev and of part held, a folder of PNGs each."""
    true_masks = open_truth(truth)
    places = {part: folder / part for part in PARTS}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for batch in iter_manifest(data):
        for image_id, image in zip(batch["image_id"], batch["image"], strict=True):
            mask = true_masks.mask_of(image_id, image)
            if mask is not None:
                part = next(part for part in PARTS if in_part(image_id, part))
                (places[part] / f"{stem(image)}.png").write_bytes(encode_mask(mask))
    return {part: str(place) for part, place in places.items()}


def measure(settings: Settings, *, data: str, truth: str, out: str, pairs: str) -> list[Line]:
    """Train, choose the alphas on part dev, score both parts."""
    parts = write_parts(data, truth, Path(out, "truth"))
    shared: dict[str, Any] = {"data": data, "preset": "paper", "resources": settings.resources}
    cam, affinity = join(out, "cam"), join(out, "affinity")
    looks: dict[str, Any] = {
        **shared,
        "cam": cam,
        "cache": join(out, "cache"),
        "folds": 0,
        "bootstrap": 0,
        "cam_inference": settings.cam.inference,
        "recam": settings.recam,
        "affinity_inference": settings.affinity.inference,
        "rewalk": settings.rewalk,
        "crf": settings.crf,
        "seed": settings.seed,
    }
    with connected(settings.resources), pairs_of_the_authors(pairs == "authors"):
        train_cam.run(train_cam.TrainCam(**shared, out=cam, cam_network=settings.cam))
        found = search.run(
            search.Search(
                **looks,
                truth=parts["dev"],
                out=join(out, "search-seeds"),
                walk=replace(settings.walk, num_steps=0),
                alphas=ALPHAS,
                steps=(0,),
                seed_alphas_low=SEED_ALPHAS[0],
                seed_alphas_high=SEED_ALPHAS[1],
            )
        )
        make_seeds.run(
            make_seeds.MakeSeeds(
                **shared,
                out=join(out, "seeds"),
                cam=cam,
                cam_inference=settings.cam.inference,
                recam=settings.recam,
                seed=merged(settings, {"seed": found["settings"]["seed"]}, where="best.json").seed,
                shards=settings.shards,
            )
        )
        train_affinity.run(
            train_affinity.TrainAffinity(
                **shared, out=affinity, seeds=join(out, "seeds"), affinity_network=settings.affinity
            )
        )
        walked = {**looks, "affinity": affinity, "walk": settings.walk, "betas": (settings.walk.beta,)}
        steps = (0, settings.walk.num_steps)
        search.run(
            search.Search(
                **walked,
                truth=parts["dev"],
                out=join(out, "search-dev"),
                alphas=ALPHAS,
                steps=steps,
                top_k_crf=TOP_K_CRF,
            )
        )
        dev = results_of(join(out, "search-dev"))
        chosen = {with_crf: best_row(dev, num_steps=steps[1], crf=with_crf)["alpha"] for with_crf in (False, True)}
        chosen_cam = best_row(dev, num_steps=0, crf=False)["alpha"]
        alphas = tuple(sorted({*chosen.values(), chosen_cam}))
        search.run(
            search.Search(
                **walked,
                truth=parts["held"],
                out=join(out, "search-held"),
                alphas=alphas,
                steps=steps,
                top_k_crf=len(alphas) * len(steps),  # all of them
            )
        )
    held = results_of(join(out, "search-held"))
    own = settings.walk.alpha
    wanted = [("CAM", chosen_cam, 0, False), ("walk, authors' alpha", own, steps[1], False)]
    wanted += [("walk", chosen[False], steps[1], False), ("walk + dCRF, authors' alpha", own, steps[1], True)]
    wanted += [("walk + dCRF", chosen[True], steps[1], True)]
    seeds = found["settings"]["seed"]
    return [
        {
            "stage": stage,
            "alpha": alpha,
            "seed_alphas": f"{seeds['alpha_low']:g}, {seeds['alpha_high']:g}",
            **{
                part: 100 * row_of(rows, {"alpha": alpha, "num_steps": num_steps, "crf": with_crf})["miou"]
                for part, rows in (("dev", dev), ("held", held))
            },
        }
        for stage, alpha, num_steps, with_crf in wanted
    ]


def results_of(out: str) -> list[Line]:
    """The rows of the results of a search."""
    rows: list[Line] = pq.read_table(join(out, search.RESULTS)).to_pylist()
    return rows


def best_row(rows: list[Line], **columns: Any) -> Line:
    """The row of results.parquet with the greatest mIoU of those that have these values."""
    return max((row for row in rows if _has(row, columns)), key=lambda row: float(row["miou"]))


def row_of(rows: list[Line], columns: dict[str, Any]) -> Line:
    """The one row that has these values."""
    (found,) = (row for row in rows if _has(row, columns))
    return found


def _has(row: Line, columns: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in columns.items())


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--out", required=True, help="where networks and searches are kept")
    options.add_argument("--data", default=str(PHOTOGRAPHS / "manifest.csv"), help="the manifest")
    options.add_argument("--truth", default=str(PHOTOGRAPHS / "truth"), help="true masks")
    options.add_argument("--rng-seed", type=int, default=0)
    options.add_argument("--pairs", default="authors", choices=("authors", "all"))
    chosen = options.parse_args()
    settings = settings_of(preset("paper"), preset("small"), chosen.rng_seed)
    lines = measure(settings, data=chosen.data, truth=chosen.truth, out=chosen.out, pairs=chosen.pairs)
    report("recipe", lines, chosen.json, pairs=chosen.pairs, rng_seed=chosen.rng_seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
