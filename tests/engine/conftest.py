"""Networks on disk, written once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.engine.stages.examples import write_network


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The networks are so small that a second thread costs more than it gains."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cam_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_network(tmp_path_factory.mktemp("cam"), "cam")


@pytest.fixture(scope="session")
def affinity_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_network(tmp_path_factory.mktemp("affinity"), "affinity")


@pytest.fixture(scope="session")
def segmentation_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_network(tmp_path_factory.mktemp("segmentation"), "segmentation")
