"""The stages that each job runs, in the order of the paper.

1. CAM: activation maps of the tagged classes (section 3.1); in later rounds, maps of the segmentation network trained
   in the previous round.
2. Walk: a background map, then a random walk along AffinityNet's affinities (sections 3.2 and 3.3).
3. dCRF and argmax: the mask.

Jobs run these steps in Ray actors (:mod:`engine.distributed.pipeline`), :mod:`engine.labeling` in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from engine.config import CrfConfig, Settings
from engine.guard import guarded
from engine.networks import TrainedNetwork
from engine.ops.confidence import LEVELS
from engine.records import Batch
from engine.resources import Decoding, PassConfig
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.seed import MakeSeed
from engine.stages.segment import Segment
from engine.stages.tag_scores import ScoreTags
from engine.stages.walk import AddBackground, RefineCam
from engine.step import Actor, Stage, Step


def label_chain(
    settings: Settings, cam: TrainedNetwork, affinity: str, *, decoding: Decoding, keep_stages: bool
) -> list[Step]:
    """From images and tags to masks.

    Args:
        cam: the network that produces the class maps.
        affinity: AffinityNet's weights; not read if the walk has 0 steps.
        decoding: how images are converted to RGB.
        keep_stages: also produce the masks after the CAM and after the walk.
    """
    maps, passes = settings.maps_of(cam.map_kind), settings.resources.passes(decoding)
    refine = partial(RefineCam, affinity, settings.affinity.inference, maps.walk, passes, keep_cam=keep_stages)
    background = partial(AddBackground, maps.walk, keep_cam=keep_stages)
    return [
        Step(name="cam", build=partial(ComputeCam, cam.file, maps.inference, passes), on="network"),
        Step(name="walk", build=refine if maps.walk.num_steps > 0 else background, on="network"),
        _masks(settings, cam, passes, keep_stages=keep_stages),
    ]


def seed_chain(settings: Settings, cam: TrainedNetwork, *, decoding: Decoding) -> list[Step]:
    """From images and tags to affinity labels; arguments as for :func:`label_chain`."""
    maps, passes = settings.maps_of(cam.map_kind), settings.resources.passes(decoding)
    seed = partial(MakeSeed, settings.seed, passes, num_classes=len(cam.class_names))
    return [
        Step(name="cam", build=partial(ComputeCam, cam.file, maps.inference, passes), on="network"),
        Step(name="seed", build=seed, on=_actor_of(settings.seed.crf)),
    ]


def segment_chain(settings: Settings, network: TrainedNetwork, *, use_tags: bool, decoding: Decoding) -> list[Step]:
    """From images to masks, with the trained segmentation network (section 3.4).

    Args:
        network: the segmentation network.
        use_tags: restrict each mask to background and the classes of the image's tags.
        decoding: how images are converted to RGB.
    """
    passes, inference = settings.resources.passes(decoding), settings.segmentation.inference
    return [
        Step(name="segment", build=partial(Segment, network.file, inference, passes, use_tags=use_tags), on="network"),
        _masks(settings, network, passes, keep_stages=False),
    ]


def tag_chain(settings: Settings, cam: TrainedNetwork, *, decoding: Decoding) -> list[Step]:
    """From images to the classifier's probability of each class."""
    score = partial(ScoreTags, cam.file, settings.cam.inference, settings.resources.passes(decoding))
    return [Step(name="tags", build=score, on="network")]


def _masks(settings: Settings, network: TrainedNetwork, passes: PassConfig, *, keep_stages: bool) -> Step:
    """The step from a network's maps to masks: dCRF and argmax."""
    mask = partial(
        MakeMask,
        settings.crf,
        settings.maps_of(network.map_kind).walk,
        passes,
        num_classes=len(network.class_names),
        keep_stages=keep_stages,
        confidence=settings.confidence.after(LEVELS[network.map_kind]),
    )
    return Step(name="crf", build=mask, on=_actor_of(settings.crf))


def _actor_of(crf: CrfConfig) -> Actor:
    """The torch dCRF runs on the networks' device."""
    return "network" if crf.backend == "torch" else "crf"


def built(steps: list[Step]) -> list[tuple[str, Stage]]:
    """Build the stages of a chain, which loads their networks; returns pairs of name and stage."""
    return [(step.name, step.build()) for step in steps]


def run_stages(stages: list[tuple[str, Stage]], batch: Batch) -> Batch:
    """Run a batch through the stages in this process; an image that fails becomes an error row."""
    for name, stage in stages:
        batch = guarded(name, stage, batch)
    return batch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Limit torch's threads as in an actor: on shared cores, waiting OpenMP threads spin and slow down the rest."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_chain(steps: list[Step], batch: Batch) -> Batch:
    """Build a chain and run one batch through it."""
    return run_stages(built(steps), batch)
