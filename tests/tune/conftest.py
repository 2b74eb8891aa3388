"""What the tests of the search share: scenes, truth of some of them, two networks, and a command line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.networks import Architecture, build_pretrained, save_network
from engine.presets import preset
from jobs import make_scenes

NUM_SCENES, NUM_TRUE = 14, 11
SIGHT: tuple[str, ...] = ("--cam.inference.long-side-px", "96", "--cam.inference.scales", "1.0")
SIGHT += ("--later-maps.long-side-px", "64", "--later-maps.scales", "1.0", "--affinity.inference.long-side-px", "96")
SPACE = ("--alphas", "0.7", "1.3", "4", "--betas", "1.5", "9", "--steps", "0", "5", "90")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, truth of some of them, and three networks that have learned nothing."""
    root = tmp_path_factory.mktemp("search")
    make_scenes.run(make_scenes.MakeScenes(out=str(root / "scenes"), num_images=NUM_SCENES, width=104, height=96))
    (root / "truth").mkdir()
    for mask in sorted((root / "scenes" / "truth").glob("*.png"))[:NUM_TRUE]:
        shutil.copy(mask, root / "truth")
    names = tuple((root / "scenes" / "classes.txt").read_text().split())
    torch.manual_seed(0)
    tiny = preset("tiny")
    for kind, config in (("cam", tiny.cam), ("affinity", tiny.affinity), ("segmentation", tiny.segmentation)):
        small = replace(config, backbone="mobilenetv3_small_050", weights="random")
        architecture = Architecture.of(small, names)
        save_network(str(root / kind), architecture, build_pretrained(architecture, "random").state_dict())
    return root


def arguments(root: Path, out: str, *more: str) -> list[str]:
    """What is typed after ``tune.search``; a later option wins."""
    shared = ["--preset", "tiny", "--data", str(root / "scenes" / "manifest.csv"), "--truth", str(root / "truth")]
    networks = ["--cam", str(root / "cam"), "--affinity", str(root / "affinity"), "--cache", str(root / "cache")]
    return [*shared, *networks, "--out", str(root / out), *SIGHT, *more]
