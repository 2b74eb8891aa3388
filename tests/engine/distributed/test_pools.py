"""Actor pools: how many actors, and what each reserves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.distributed.cluster import Cluster
from engine.distributed.pools import Pool, crf_pool, fit_to_cluster, network_pool, pools_of
from engine.resources import ResourceConfig
from engine.step import Actor, Step
from tests.engine.distributed.examples import Measure

ALONE = Cluster(num_cpus=10, num_gpus=0, num_cores=4, started_here=True)
JOINED = Cluster(num_cpus=640, num_gpus=8, num_cores=2, started_here=False)


def test_consecutive_steps_on_the_same_kind_of_actor_share_a_pool() -> None:
    kinds: list[tuple[str, Actor]] = [("a", "network"), ("b", "network"), ("c", "crf"), ("d", "network")]
    steps = [Step(name=name, build=Measure, on=on) for name, on in kinds]
    pools = pools_of(steps, ResourceConfig(num_gpus=1), JOINED)
    assert ["".join(step.name for step in pool.steps) for pool in pools] == ["ab", "c", "d"]
    assert [pool.num_gpus for pool in pools] == [1, 0, 1]


def test_pools_fill_the_machine_or_the_cluster_and_obey_their_limit() -> None:
    assert crf_pool([], ResourceConfig(), ALONE).max_actors == 4
    assert crf_pool([], ResourceConfig(), JOINED).max_actors >= 640
    assert crf_pool([], ResourceConfig(max_crf_actors=3), JOINED).max_actors == 3
    assert network_pool([], ResourceConfig(), ALONE).max_actors == 3
    assert network_pool([], ResourceConfig(threads_per_actor=2), ALONE).max_actors == 2
    assert network_pool([], ResourceConfig(num_gpus=0.5), JOINED).max_actors >= 16
    assert network_pool([], ResourceConfig(num_gpus=0.5, max_network_actors=5), JOINED).max_actors == 5


def test_cluster_is_asked_for_all_gpu_nodes_at_once() -> None:
    head = Cluster(num_cpus=0, num_gpus=0, num_cores=2, started_here=False)
    assert network_pool([], ResourceConfig(num_gpus=1), head).min_actors == 64
    assert network_pool([], ResourceConfig(num_gpus=1, max_network_actors=8), head).min_actors == 8
    assert network_pool([], ResourceConfig(), head).min_actors == 1  # it would take the CPUs of the dCRF
    assert network_pool([], ResourceConfig(num_gpus=1), replace(ALONE, num_gpus=2)).min_actors == 1


def test_network_pool_reserves_the_threads_and_gpus_it_uses() -> None:
    pool = network_pool([], ResourceConfig(num_gpus=0.25, threads_per_actor=4), JOINED)
    assert (pool.num_cpus, pool.num_gpus, pool.threads) == (4, 0.25, 4)


def _chain(resources: ResourceConfig, cluster: Cluster) -> list[Pool]:
    first = Pool(steps=(), max_actors=1, num_cpus=0.5)
    return [first, network_pool([], resources, cluster), crf_pool([], resources, cluster)]


@pytest.mark.parametrize("cores", [1, 2, 4, 64])
@pytest.mark.parametrize("threads", [1, 4])
def test_one_actor_of_each_pool_always_fits_with_a_cpu_to_spare(cores: int, threads: int) -> None:
    for num_cpus in (cores, 2 * cores + 2):  # as joined and as started here
        cluster = Cluster(num_cpus=num_cpus, num_gpus=0, num_cores=cores, started_here=num_cpus > cores)
        pools = fit_to_cluster(_chain(ResourceConfig(threads_per_actor=threads), cluster), cluster)
        assert 0 < sum(pool.num_cpus for pool in pools) <= max(num_cpus - 1, 0.5)


def test_pools_at_full_size_leave_one_machine_a_cpu_for_rays_own_tasks() -> None:
    for cores in (1, 2, 4, 16, 64):
        cluster = Cluster(num_cpus=2 * cores + 2, num_gpus=0, num_cores=cores, started_here=True)
        pools = fit_to_cluster(_chain(ResourceConfig(), cluster), cluster)
        assert sum(pool.num_cpus * pool.max_actors for pool in pools) <= cluster.num_cpus - 1


def test_stages_without_a_gpu_never_ask_for_one() -> None:
    resources = ResourceConfig(num_gpus=0.5)
    first, network, crf = fit_to_cluster(_chain(resources, JOINED), JOINED)
    assert (first.num_gpus, network.num_gpus, crf.num_gpus) == (0, 0.5, 0)
    head = Cluster(num_cpus=2, num_gpus=0, num_cores=2, started_here=False)
    assert fit_to_cluster(_chain(resources, head), head) == _chain(resources, head)  # GPU nodes are still to come
    empty = replace(head, num_cpus=0)
    assert fit_to_cluster(_chain(ResourceConfig(), empty), empty) == _chain(ResourceConfig(), empty)
