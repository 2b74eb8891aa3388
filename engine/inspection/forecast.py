"""What a whole run will take: its stages and training steps, timed on a few images with untrained networks."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.chain import built, label_chain, run_stages, seed_chain, torch_threads
from engine.config import NetworkConfig, Settings
from engine.fitting.learner import Learner
from engine.fitting.objectives import Objective
from engine.fitting.samples import LoadSamples, SampleSource
from engine.networks import open_network, save_network
from engine.records import Batch
from engine.resources import ResourceConfig
from engine.stages.fetch import FetchImages
from engine.step import Step
from engine.storage.filesystem import join
from engine.storage.manifest import Manifest
from engine.storage.weights import WEIGHTS_NAME

NUM_IMAGES = 5
"""Images that are labeled; the first only warms up."""
_NUM_LOADED = 8
_STEP_IMAGES = 2
"""Images of a timed training step on a CPU, which takes about as long per image whatever their number."""
_RAY_BYTES = 1 << 30
"""What Ray's own processes take on a machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """An estimate for this machine."""

    seconds: dict[str, float]
    """Duration by step, over all rounds."""
    core_hours: float
    gpu_hours: float
    memory_bytes: int
    disk_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, with the duration of the whole run."""
        return {**asdict(self), "total_s": sum(self.seconds.values())}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cost:
    """Of one image in one pass."""

    core_s: float
    gpu_s: float = 0.0
    num_bytes: float = 0.0


def forecast(
    settings: Settings, folder: str, rows: Batch, manifest: Manifest, *, num_cores: int, max_pixels: int
) -> Forecast:
    """Estimate a run with these settings; call it in a process of its own, whose memory is taken for that of an actor.

    Args:
        folder: Folder of the frozen manifest.
        rows: :data:`NUM_IMAGES` rows of it that can be used, or fewer, but at least two.
        num_cores: Cores of this machine.

    Raises:
        ConfigError: A network's settings cannot be used.
        TooManyErrors: Images that were drawn for training cannot be used.
    """
    rounds, num_rows = settings.rounds, manifest.num_rows
    last = rounds.last_epoch_factor if rounds.num_rounds > 1 else 1
    passes = {
        "cam": settings.cam.training.num_epochs,
        "seeds": 1,
        "affinity": settings.affinity.training.num_epochs,
        "masks": 1,
        "later masks": rounds.num_rounds - 1,
        "segmentation": settings.segmentation.training.num_epochs * (rounds.num_rounds - 1 + last),
    }
    # the speed does not depend on the weights, which may have to be downloaded
    networks: list[NetworkConfig] = [
        replace(one, weights="random") for one in (settings.cam, settings.affinity, settings.segmentation)
    ]
    objectives = {one: Objective.of(one, manifest.class_names) for one in networks}
    costs, weights_bytes = _labeling_costs(objectives.values(), settings, manifest, rows, max_pixels)
    resources, labeling_bytes = settings.resources, _peak_bytes()
    for network, objective in objectives.items():
        load_s = _seconds_to_load(network, folder, manifest, max_pixels)
        costs[objective.architecture.kind] = _training_cost(objective, network, resources, num_cores, load_s)
    core_s = {name: costs[name].core_s * number * num_rows for name, number in passes.items()}
    gpu_s = {name: costs[name].gpu_s * number * num_rows for name, number in passes.items()}
    num_gpus = max(1, torch.cuda.device_count())
    training_bytes = resources.num_workers * (_peak_bytes() + resources.max_loader_actors * labeling_bytes)
    mask_bytes = sum(costs[name].num_bytes * number * num_rows for name, number in passes.items())
    return Forecast(
        seconds={name: round(max(core_s[name] / num_cores, gpu_s[name] / num_gpus), 1) for name in passes},
        core_hours=sum(core_s.values()) / 3600,
        gpu_hours=sum(gpu_s.values()) / 3600,
        memory_bytes=max((num_cores + 1) * labeling_bytes, training_bytes) + _RAY_BYTES,
        disk_bytes=round(mask_bytes) + weights_bytes * rounds.num_rounds,
    )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _labeling_costs(
    objectives: Iterable[Objective], settings: Settings, manifest: Manifest, rows: Batch, max_pixels: int
) -> tuple[dict[str, _Cost], int]:
    """Time the labeling, and give the size of the networks."""
    decoding = manifest.decoding(max_pixels)
    with tempfile.TemporaryDirectory(prefix="tag2mask-inspect-") as place:
        for one in objectives:
            save_network(join(place, one.architecture.kind, WEIGHTS_NAME), one.architecture, one.build().state_dict())
        cam, later = (open_network(join(place, kind), kind) for kind in ("cam", "segmentation"))
        affinity = join(place, "affinity", WEIGHTS_NAME)
        labeling = partial(label_chain, settings, affinity=affinity, decoding=decoding, keep_stages=False)
        batch = FetchImages(threads=NUM_IMAGES)(rows)
        weights_bytes = sum(file.stat().st_size for file in Path(place).glob(f"*/{WEIGHTS_NAME}"))
        with torch_threads(settings.resources.threads_per_actor):
            costs = {
                "seeds": _chain_cost(seed_chain(settings, cam, decoding=decoding), "seed", batch, settings.resources),
                "masks": _chain_cost(labeling(cam), "mask", batch, settings.resources),
                "later masks": _chain_cost(labeling(later), "mask", batch, settings.resources),
            }
    return costs, weights_bytes


def _chain_cost(chain: Sequence[Step], column: str, batch: Batch, resources: ResourceConfig) -> _Cost:
    seconds = {"network": 0.0, "crf": 0.0}
    stages = built(list(chain))
    first, rest = ({name: values[part] for name, values in batch.items()} for part in (slice(1), slice(1, None)))
    run_stages(stages, first)
    for step, stage in zip(chain, stages, strict=True):
        start = time.perf_counter()
        rest = run_stages([stage], rest)
        seconds[step.on] += time.perf_counter() - start
    num = len(rest["error"])
    sizes = [len(picture) for picture in rest[column] if picture is not None]
    num_bytes = sum(sizes) / max(1, len(sizes))
    if resources.num_gpus:
        return _Cost(core_s=seconds["crf"] / num, gpu_s=seconds["network"] / num, num_bytes=num_bytes)
    core_s = seconds["crf"] + seconds["network"] * resources.threads_per_actor
    return _Cost(core_s=core_s / num, num_bytes=num_bytes)


def _training_cost(
    objective: Objective, network: NetworkConfig, resources: ResourceConfig, num_cores: int, load_s: float
) -> _Cost:
    training, architecture = network.training, objective.architecture
    batch_size = training.batch_size if resources.num_gpus else min(training.batch_size, _STEP_IMAGES)
    crop = training.crop_px
    targets: dict[str, tuple[int, ...]] = {
        "cam": (len(architecture.class_names),),
        "affinity": (-(-crop // max(1, architecture.grid_stride)),) * 2,
        "segmentation": (crop, crop),
    }
    sample: dict[str, Any] = {
        "image": np.random.default_rng(0).integers(0, 256, (batch_size, crop, crop, 3), dtype=np.uint8),
        "target": np.zeros(
            (batch_size, *targets[architecture.kind]), np.float32 if architecture.kind == "cam" else np.int32
        ),
        "weight": np.ones(batch_size, np.float32),
    }
    threads = resources.training_threads or num_cores
    with torch_threads(threads):
        learner = Learner(objective, training, torch.device(resources.device))
        float(learner.step(0, 3, sample))  # warms up
        start = time.perf_counter()
        for step in (1, 2):
            float(learner.step(step, 3, sample))  # waits for the device
        step_s = (time.perf_counter() - start) / 2 / batch_size
    if resources.num_gpus:
        return _Cost(core_s=load_s, gpu_s=step_s)
    return _Cost(core_s=load_s + step_s * threads)


def _seconds_to_load(network: NetworkConfig, folder: str, manifest: Manifest, max_pixels: int) -> float:
    """Time the reading and augmentation of a training sample."""
    source = SampleSource(
        manifest=folder,
        target="tags",
        rows_of_shards=manifest.rows_of_shards,
        num_classes=len(manifest.class_names),
        max_pixels=max_pixels,
    )
    load = LoadSamples(source, network.training, rank=0, num_workers=1)
    load.sample(0, 0, 0)
    start = time.perf_counter()
    for epoch in range(1, _NUM_LOADED + 1):
        load.sample(epoch, 0, epoch % manifest.rows_of_shards[0])
    return (time.perf_counter() - start) / _NUM_LOADED
