"""What each network learns."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.fitting.objectives import Objective, parameter_groups
from engine.models.backbone import Backbone
from tests.engine.stages.examples import CLASS_NAMES, network_config


@pytest.mark.parametrize("kind", ["cam", "affinity", "segmentation"])
def test_objective_of_each_network_gives_a_loss_that_reaches_all_its_layers(kind: str) -> None:
    objective: Objective = pickle.loads(pickle.dumps(Objective.of(network_config(kind), CLASS_NAMES)))
    network = objective.build().train()
    targets: dict[str, Tensor] = {
        "cam": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        "affinity": torch.randint(0, 3, (2, 8, 8)),
        "segmentation": torch.randint(0, 4, (2, 64, 64)),
    }
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    output = network(images)
    sums, counts = objective.terms(output, targets[kind], torch.ones(2))
    loss = objective.combine(sums, counts)
    torch.autograd.backward(loss)
    assert float(loss.detach()) > 0
    assert all(parameter.grad is not None for parameter in network.parameters())
    name, score = next(iter(objective.scores(objective.table(output.detach(), targets[kind])).items()))
    assert name == {"cam": "mean_ap", "affinity": "pair_accuracy", "segmentation": "miou"}[kind]
    assert 0 <= score <= 1


def test_file_of_first_weights_means_the_same_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for source, sent in [("some/resnet.pth", str(tmp_path / "some/resnet.pth")), ("hub:resnet50.a1_in1k",) * 2]:
        config = replace(network_config("cam"), weights=source)
        assert Objective.of(config, CLASS_NAMES).weights == sent


def test_many_classes_are_ignored_by_the_wider_value() -> None:
    for num_classes, ignore in [(254, 255), (255, 65535)]:
        names = tuple(f"class {number}" for number in range(num_classes))
        objective = Objective.of(network_config("segmentation"), names)
        mask = torch.tensor([[[0, ignore, 3]]])
        assert objective.terms(torch.zeros(1, num_classes + 1, 1, 3), mask, torch.ones(1))[1].tolist() == [2]


def test_backbone_and_new_layers_learn_at_their_own_rates() -> None:
    network = Objective.of(network_config("affinity"), CLASS_NAMES).build()
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    backbone.freeze_batch_norm()
    slow, fast = parameter_groups(network, learning_rate=1e-3, head_learning_rate=1e-2)
    assert (slow["lr"], fast["lr"]) == (1e-3, 1e-2)
    in_slow, in_fast = ({id(parameter) for parameter in group["params"]} for group in (slow, fast))
    assert in_slow == {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    new = (parameter for name, parameter in network.named_parameters() if name.startswith(("taps.", "mix.")))
    assert in_fast == {id(parameter) for parameter in new}
    assert any(not parameter.requires_grad for parameter in backbone.parameters())
