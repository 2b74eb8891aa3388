"""What labeling is: which stages, in which order, on which actors, and how they run in one process."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import pytest

from engine.chain import label_chain, run_chain, seed_chain, segment_chain, tag_chain
from engine.config import Settings
from engine.networks import MAP_KINDS, TrainedNetwork, open_network
from engine.presets import preset
from engine.records import Batch
from engine.resources import Decoding, ResourceConfig
from engine.stages.mask import MakeMask
from engine.stages.seed import MakeSeed
from engine.stages.walk import AddBackground, RefineCam
from engine.step import Step
from tests.engine.stages.examples import MAX_PIXELS, picture, png, rows, write_network

CrfBackend = Literal["auto", "numba", "torch"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedNetwork]:
    kinds = (*MAP_KINDS, "affinity")
    return {kind: open_network(write_network(tmp_path_factory.mktemp(kind), kind), kind) for kind in kinds}


def _settings() -> Settings:
    tiny = preset("tiny")
    return replace(
        tiny,
        cam=replace(tiny.cam, inference=replace(tiny.cam.inference, long_side_px=64, scales=(1.0,))),
        affinity=replace(tiny.affinity, inference=replace(tiny.affinity.inference, long_side_px=64)),
        walk=replace(tiny.walk, num_steps=8),
        crf=replace(tiny.crf, num_iterations=1),
    )


def _with_crf(settings: Settings, backend: CrfBackend) -> Settings:
    crf = replace(settings.crf, backend=backend)
    return replace(settings, crf=crf, seed=replace(settings.seed, crf=crf))


def _label(
    settings: Settings, networks: dict[str, TrainedNetwork], kind: str = "cam", *, keep_stages: bool = False
) -> list[Step]:
    affinity = networks["affinity"].file
    return label_chain(
        settings, networks[kind], affinity, decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=keep_stages
    )


def _shape(chain: list[Step]) -> list[tuple[str, str]]:
    return [(step.name, step.on) for step in chain]


def test_labeling_is_cam_walk_and_dcrf(networks: dict[str, TrainedNetwork]) -> None:
    chain = _label(_settings(), networks)
    assert _shape(chain) == [("cam", "network"), ("walk", "network"), ("crf", "crf")]
    assert isinstance(chain[1].build(), RefineCam)
    assert isinstance(chain[2].build(), MakeMask)


def test_walk_of_no_steps_adds_the_background_and_reads_no_affinity(networks: dict[str, TrainedNetwork]) -> None:
    settings = replace(_settings(), walk=replace(_settings().walk, num_steps=0))
    chain = label_chain(settings, networks["cam"], "", decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=False)
    assert _shape(chain) == [("cam", "network"), ("walk", "network"), ("crf", "crf")]
    assert isinstance(chain[1].build(), AddBackground)


@pytest.mark.parametrize(("backend", "actor"), [("auto", "crf"), ("numba", "crf"), ("torch", "network")])
def test_torch_dcrf_runs_where_the_networks_do(
    backend: CrfBackend, actor: str, networks: dict[str, TrainedNetwork]
) -> None:
    settings = _with_crf(_settings(), backend)
    assert _shape(_label(settings, networks)) == [("cam", "network"), ("walk", "network"), ("crf", actor)]
    seeds = seed_chain(settings, networks["cam"], decoding=Decoding(max_pixels=MAX_PIXELS))
    assert _shape(seeds) == [("cam", "network"), ("seed", actor)]
    assert isinstance(seeds[1].build(), MakeSeed)
    masks = segment_chain(settings, networks["segmentation"], use_tags=True, decoding=Decoding(max_pixels=MAX_PIXELS))
    assert _shape(masks) == [("segment", "network"), ("crf", actor)]
    assert _shape(tag_chain(settings, networks["cam"], decoding=Decoding(max_pixels=MAX_PIXELS))) == [
        ("tags", "network")
    ]


def test_dcrf_of_the_seeds_and_of_the_masks_choose_their_actor_apart(networks: dict[str, TrainedNetwork]) -> None:
    settings = _settings()
    masks_on_networks = replace(settings, crf=replace(settings.crf, backend="torch"))
    assert seed_chain(masks_on_networks, networks["cam"], decoding=Decoding(max_pixels=MAX_PIXELS))[-1].on == "crf"
    assert _label(masks_on_networks, networks)[-1].on == "network"


def test_settings_of_later_rounds_reach_the_maps_of_the_segmentation_network(
    networks: dict[str, TrainedNetwork],
) -> None:
    settings = replace(_settings(), later_walk=replace(_settings().later_walk, num_steps=0))
    first, later = _label(settings, networks), _label(settings, networks, "segmentation")
    assert isinstance(first[1].build(), RefineCam)
    assert isinstance(later[1].build(), AddBackground)


def test_resources_reach_every_stage_of_a_network(networks: dict[str, TrainedNetwork]) -> None:
    resources = ResourceConfig(num_gpus=0.5, images_per_pass=7)
    settings = replace(_settings(), resources=resources)
    chains = [
        _label(settings, networks),
        seed_chain(settings, networks["cam"], decoding=Decoding(max_pixels=MAX_PIXELS)),
        segment_chain(settings, networks["segmentation"], use_tags=False, decoding=Decoding(max_pixels=MAX_PIXELS)),
        tag_chain(settings, networks["cam"], decoding=Decoding(max_pixels=MAX_PIXELS)),
    ]
    passes = resources.passes(Decoding(max_pixels=MAX_PIXELS))
    assert (passes.device, passes.images_per_pass, passes.decoding.max_pixels) == ("cuda", 7, MAX_PIXELS)
    for step in (step for chain in chains for step in chain):
        assert isinstance(step.build, partial)
        assert passes in step.build.args, step.name


@pytest.mark.parametrize("keep_stages", [False, True])
def test_masks_of_earlier_stages_are_kept_on_request(keep_stages: bool, networks: dict[str, TrainedNetwork]) -> None:
    out = run_chain(_label(_settings(), networks, keep_stages=keep_stages), rows([png(picture(40, 56))], [[1, 3]]))
    assert out["error"] == [None]
    assert out["mask"][0] is not None
    assert ({"mask_cam", "mask_walk"} <= out.keys()) == keep_stages


class Doubled:
    """A stage that doubles its values, and fails for one of them."""

    num_built = 0

    def __init__(self, bad: int) -> None:
        type(self).num_built += 1
        self._bad = bad

    def __call__(self, batch: Batch) -> Batch:
        values = []
        for value, error in zip(batch["value"], batch["error"], strict=True):
            if error is None and value == self._bad:
                raise RuntimeError(f"{value} is too odd")
            values.append(None if error is not None else 2 * value)
        return {**batch, "value": values}


def test_failing_stage_of_a_hand_written_chain_makes_an_error_row_and_the_next_goes_on() -> None:
    steps = [
        Step(name="first", build=partial(Doubled, 3), on="network"),
        Step(name="second", build=lambda: Doubled(8), on="crf"),
    ]
    batch: Batch = {"value": [1, 3, 4, 5], "error": [None, None, None, "fetch: gone"]}
    out = run_chain(steps, batch)
    assert out["value"] == [4, None, None, None]
    assert out["error"] == [None, "first: 3 is too odd", "second: 8 is too odd", "fetch: gone"]
    assert batch == {"value": [1, 3, 4, 5], "error": [None, None, None, "fetch: gone"]}


def test_stage_is_built_once_and_only_where_it_runs() -> None:
    before = Doubled.num_built
    steps = [Step(name="only", build=partial(Doubled, 0), on="network")]
    assert Doubled.num_built == before
    run_chain(steps, {"value": [1, 2], "error": [None, None]})
    assert Doubled.num_built == before + 1


def test_image_that_cannot_be_decoded_is_an_error_row_of_the_first_stage(
    networks: dict[str, TrainedNetwork],
) -> None:
    out = run_chain(_label(_settings(), networks), rows([b"no picture", png(picture(40, 56))], [[1], [1]]))
    assert out["error"][0].startswith("decode: ")
    assert out["mask"][0] is None
    assert out["error"][1] is None
    assert out["mask"][1] is not None
