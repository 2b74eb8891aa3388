"""Train with the authors' recipe on our backbone and images, as a baseline for the engine's masks.

    python -m experiments recipe --data MANIFEST --truth FOLDER --out runs/recipe [--rng-seed 0] [--pairs authors]
        [--json FILE]

Preset ``paper`` (the authors' schedule in epochs, crops, scales, exponents and dCRF) with backbone, weights, stride and
optimizer of preset ``small``: at the authors' rates (SGD, .1 and 1) the loss of EfficientNet-Lite0 is 4e9 after seven
steps. ``--pairs authors`` leaves out the pairs at the grid's margin, as their code does (``experiments.objectives``);
``--pairs all`` keeps them. The authors' alphas suit the CAM of another network, so those of seeds and masks are
searched on part ``dev`` (``experiments.finished_run``). The figures are the mIoU on both parts, with the authors'
alphas and with those found. Rerun the command to resume. Takes an hour and a half on two cores.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.runner import Line, parser, report
from engine.config import AffinityConfig, CamConfig, Settings
from engine.distributed.cluster import connected
from engine.fitting.objectives import Objective
from engine.plain_settings import merged
from engine.presets import preset
from engine.storage.filesystem import join
from experiments.finished_run import write_parts
from experiments.objectives import drop_margin, without_margin
from experiments.searches import best_row, row_of, rows_of
from jobs import make_seeds, train_affinity, train_cam
from tune import search

ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
SEED_ALPHAS = (0.4, 0.8, 1.2, 2.0, 4.0), (3.0, 4.0, 5.0, 8.0, 12.0, 32.0)
TOP_K_CRF = 3

Network = TypeVar("Network", CamConfig, AffinityConfig)


def settings_of(recipe: Settings, small: Settings, rng_seed: int) -> Settings:
    """Combine the authors' settings, in float32, with the backbone of ``small`` and the optimizer that it needs."""

    def on_backbone(part: Network, other: Network) -> Network:
        training = replace(
            part.training,
            precision="float32",
            rng_seed=rng_seed,
            optimizer=other.training.optimizer,
            learning_rate=other.training.learning_rate,
            head_learning_rate=other.training.head_learning_rate,
            momentum=other.training.momentum,
            weight_decay=other.training.weight_decay,
            clip_norm=other.training.clip_norm,
        )
        inference: Any = replace(part.inference, precision="float32")
        backbone = replace(part, backbone=other.backbone, weights=other.weights, stride=other.stride)
        return replace(backbone, training=training, inference=inference)

    return replace(
        recipe,
        cam=on_backbone(recipe.cam, small.cam),
        affinity=on_backbone(recipe.affinity, small.affinity),
        shards=small.shards,
        resources=small.resources,
    )


def measure(settings: Settings, *, data: str, truth: str, out: str, authors_pairs: bool) -> list[Line]:
    """Train, choose the alphas on part dev, score both parts."""
    parts = write_parts(data, truth, Path(out, "truth"))
    cam, seeds, affinity = (join(out, name) for name in ("cam", "seeds", "affinity"))
    make_objective = without_margin if authors_pairs else Objective.of
    steps = [drop_margin(settings.walk.radius)] if authors_pairs else []
    walk_steps = settings.walk.num_steps
    walks = search.Search(
        data=data,
        truth=parts["dev"],
        out=join(out, "search-dev"),
        cam=cam,
        affinity=affinity,
        cache=join(out, "cache"),
        alphas=ALPHAS,
        betas=(settings.walk.beta,),
        steps=(0, walk_steps),
        top_k_crf=TOP_K_CRF,
        folds=0,
        bootstrap=0,
        settings=settings,
    )
    seed_alphas = replace(
        walks,
        out=join(out, "search-seeds"),
        affinity="",
        steps=(0,),
        top_k_crf=0,
        seed_alphas_low=SEED_ALPHAS[0],
        seed_alphas_high=SEED_ALPHAS[1],
        settings=replace(settings, walk=replace(settings.walk, num_steps=0)),
    )
    with connected(settings.resources):
        train_cam.run(train_cam.TrainCam(data=data, out=cam, settings=settings))
        seed = search.run(seed_alphas)["settings"]["seed"]
        seeded = merged(settings, {"seed": seed}, where="best.json")
        make_seeds.run(make_seeds.MakeSeeds(data=data, out=seeds, cam=cam, settings=seeded))
        train_affinity.run(
            train_affinity.TrainAffinity(data=data, out=affinity, seeds=seeds, settings=settings),
            make_objective=make_objective,
        )
        dev = rows_of(walks, steps)
        best = {crf: best_row(dev, num_steps=walk_steps, crf=crf)["alpha"] for crf in (False, True)}
        best_cam = best_row(dev, num_steps=0, crf=False)["alpha"]
        alphas = tuple(sorted({*best.values(), best_cam}))
        everything = 2 * len(alphas)
        held_out = replace(
            walks, truth=parts["held"], out=join(out, "search-held"), alphas=alphas, top_k_crf=everything
        )
        held = rows_of(held_out, steps)
    own = settings.walk.alpha
    stages = [("CAM", best_cam, 0, False), ("walk, authors' alpha", own, walk_steps, False)]
    stages += [("walk", best[False], walk_steps, False), ("walk + dCRF, authors' alpha", own, walk_steps, True)]
    stages += [("walk + dCRF", best[True], walk_steps, True)]
    return [
        {
            "stage": stage,
            "alpha": alpha,
            "seed_alphas": f"{seed['alpha_low']:g}, {seed['alpha_high']:g}",
            "dev": 100 * row_of(dev, alpha=alpha, num_steps=num_steps, crf=crf)["miou"],
            "held": 100 * row_of(held, alpha=alpha, num_steps=num_steps, crf=crf)["miou"],
        }
        for stage, alpha, num_steps, crf in stages
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="the manifest")
    options.add_argument("--truth", required=True, help="true masks")
    options.add_argument("--out", required=True, help="folder for networks and searches")
    options.add_argument("--rng-seed", type=int, default=0)
    options.add_argument("--pairs", default="authors", choices=("authors", "all"))
    chosen = options.parse_args()
    settings = settings_of(preset("paper"), preset("small"), chosen.rng_seed)
    lines = measure(
        settings, data=chosen.data, truth=chosen.truth, out=chosen.out, authors_pairs=chosen.pairs == "authors"
    )
    report("recipe", lines, chosen.json, pairs=chosen.pairs, rng_seed=chosen.rng_seed)
