"""Networks to a file and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.config import CamInferenceConfig
from engine.errors import ConfigError, WeightsError
from engine.models.backbone import Backbone
from engine.networks import (
    MAP_KINDS,
    Architecture,
    build,
    build_pretrained,
    check_map_network,
    load_network,
    open_network,
    read_architecture,
    save_network,
)
from engine.storage.weights import save_weights, weights_hash
from tests.engine.stages.examples import CLASS_NAMES, network_config, write_network


@pytest.mark.parametrize("kind", ["cam", "affinity", "segmentation"])
@torch.inference_mode()
def test_network_comes_back_from_its_folder_with_all_that_it_was(kind: str, tmp_path: Path) -> None:
    config = network_config(kind)
    architecture = Architecture.of(config, ("Katze", "chien", "鳥"))
    network = build(architecture, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)).eval()
    save_network(str(tmp_path / "weights.safetensors"), architecture, network.state_dict())
    back, read = load_network(str(tmp_path), kind)
    assert read == read_architecture(str(tmp_path), kind) == architecture
    assert not back.training
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(back(images), network(images))


def test_network_of_another_kind_is_refused(cam_weights: str) -> None:
    with pytest.raises(WeightsError, match="holds a network of kind 'cam', not 'affinity'"):
        load_network(cam_weights, "affinity")


def test_weights_without_architecture_are_refused(tmp_path: Path) -> None:
    save_weights(str(tmp_path / "weights.safetensors"), {"a": torch.zeros(2)}, {})
    with pytest.raises(WeightsError, match="was not written by this engine"):
        load_network(str(tmp_path), "cam")


def test_weights_that_do_not_fit_their_architecture_are_refused_in_one_line(tmp_path: Path) -> None:
    architecture = Architecture.of(network_config("cam"), CLASS_NAMES)
    network = build(architecture, mean=(0, 0, 0), std=(1, 1, 1))
    more = replace(architecture, class_names=(*CLASS_NAMES, "fish"))
    save_network(str(tmp_path / "weights.safetensors"), more, network.state_dict())
    with pytest.raises(WeightsError, match="does not match the architecture in its metadata") as refused:
        load_network(str(tmp_path), "cam")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("backbone", ["resnet51", "swin_tiny_patch4_window7_224"])
def test_backbone_that_cannot_serve_is_the_users_mistake(backbone: str) -> None:
    architecture = Architecture.of(replace(network_config("cam"), backbone=backbone), CLASS_NAMES)
    with pytest.raises(ConfigError, match=rf"^cam\.backbone cannot be used: backbone .*{backbone}"):
        build_pretrained(architecture, "random")


def test_file_of_imagenet_weights_may_end_like_those_of_the_engine(tmp_path: Path) -> None:
    architecture = Architecture.of(network_config("cam"), CLASS_NAMES)
    network = build_pretrained(architecture, "random")
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    location = str(tmp_path / "imagenet-weights.safetensors")
    save_file(backbone.timm_model.state_dict(), location)
    again = build_pretrained(architecture, location).state_dict()
    for name, value in network.state_dict().items():
        if name.startswith("backbone.timm_model."):
            assert torch.equal(again[name], value)


def test_attention_is_asked_of_a_trained_network_before_anything_starts(cam_weights: str, tmp_path: Path) -> None:
    spread = CamInferenceConfig(attention_steps=1)
    check_map_network(open_network(cam_weights, "cam"), CamInferenceConfig())
    words = "must be 0 for the backbone 'mobilenetv3_small_050', which has no attention, got 1"
    with pytest.raises(ConfigError, match=rf"^cam\.inference\.attention_steps {words}$"):
        check_map_network(open_network(cam_weights, "cam"), spread)
    transformer = write_network(tmp_path / "vit", "cam", backbone="vit_tiny_patch16_224")
    check_map_network(open_network(transformer, "cam"), spread)
    other = write_network(tmp_path / "segmentation", "segmentation")
    check_map_network(open_network(other, "segmentation"), spread)  # it has no maps to spread


@pytest.mark.parametrize("kind", ["cam", "segmentation"])
def test_trained_network_is_opened_without_its_weights(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_network(tmp_path, kind)
    monkeypatch.delattr("engine.networks.load_weights")
    network = open_network(folder, MAP_KINDS)
    assert (network.map_kind, network.class_names) == (kind, CLASS_NAMES)
    assert network.hash == weights_hash(network.file) == weights_hash(folder)
    with pytest.raises(WeightsError, match=f"holds a network of kind '{kind}', not 'affinity'"):
        open_network(folder, "affinity")
