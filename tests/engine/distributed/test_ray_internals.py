"""Ray still behaves as :mod:`engine.distributed.ray_internals` relies on."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.data
from ray._private import ray_constants
from ray._private.runtime_env import working_dir
from ray._private.runtime_env.packaging import create_package
from ray.data import ActorPoolStrategy, DataContext

from engine.distributed.ray_internals import (
    PAUSE_S,
    Pause,
    answers,
    grow_with_one_task_each,
    map_whole_blocks,
    started_too_slowly,
    throttled_context,
)
from engine.storage.retries import in_ray_copy
from tests.conftest import ROOT


def test_context_is_given_the_pause_once() -> None:
    for _ in range(3):
        context = throttled_context()
    assert context.custom_execution_callback_classes.count(Pause) == 1
    assert Pause in context.execution_callback_classes
    assert not context.enable_progress_bars


@pytest.mark.slow
def test_stream_that_is_not_consumed_uses_hardly_any_cpu_of_this_process(ray_session: None) -> None:
    context = throttled_context()
    before = context.execution_options.resource_limits
    context.execution_options.resource_limits = before.copy(object_store_memory=2e6)
    try:
        blocks = ray.data.range(400, override_num_blocks=400).map_batches(lambda rows: {"x": [bytes(10**6)]})
        stream = iter(blocks.iter_batches(batch_size=None, prefetch_batches=0))
        next(stream)
        time.sleep(2)  # until it is ahead as far as it may
        start = time.process_time()
        time.sleep(100 * PAUSE_S)
        assert time.process_time() - start < 50 * PAUSE_S
    finally:
        context.execution_options.resource_limits = before


class Sizes:
    """An actor: the number of rows that it is given at once, and who it is."""

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(0.2)
        return pa.table({"rows": [table.num_rows], "process": [os.getpid()]})


@pytest.mark.slow
def test_actor_is_given_whole_blocks_as_they_are(ray_session: None) -> None:
    blocks = ray.data.from_items([{"x": number} for number in range(12)], override_num_blocks=4)
    sizes = map_whole_blocks(blocks, Sizes, num_gpus=None, num_cpus=0.5, compute=ActorPoolStrategy(size=1))
    assert [row["rows"] for row in sizes.take_all()] == [3, 3, 3, 3]
    map_whole_blocks(blocks, Sizes, num_gpus=1, compute=ActorPoolStrategy(size=1))
    with pytest.raises(ValueError, match="batch_size"):  # once this passes, map_batches does it
        blocks.map_batches(Sizes, batch_size=None, num_gpus=1, compute=ActorPoolStrategy(size=1))


@pytest.mark.slow
def test_pool_grows_though_its_actors_take_one_task_at_a_time(ray_session: None) -> None:
    context = throttled_context().copy()
    grow_with_one_task_each(context)
    compute = ActorPoolStrategy(min_size=1, max_size=3, max_tasks_in_flight_per_actor=1)
    with DataContext.current(context):
        blocks = ray.data.from_items(list(range(400)), override_num_blocks=400)
        rows = iter(map_whole_blocks(blocks, Sizes, num_cpus=0.5, compute=compute).iter_rows())
        processes: set[int] = set()
        while len(processes) < 3:  # StopIteration if the pool stays small
            processes.add(next(rows)["process"])


@pytest.mark.slow
def test_workers_have_the_priority_and_the_devices_of_this_process(ray_session: None) -> None:
    @ray.remote(num_cpus=0.1, num_gpus=0)
    def worker() -> tuple[int, str | None]:
        return os.nice(0), os.environ.get("CUDA_VISIBLE_DEVICES")

    assert ray.get(worker.remote()) == (os.nice(0), os.environ.get("CUDA_VISIBLE_DEVICES"))


def test_standard_error_while_ray_starts_comes_after_it_without_the_remark() -> None:
    code = (
        "import os; from engine.distributed.ray_internals import _REMARK, without_log_level_remark\n"
        "with without_log_level_remark():\n"
        "    os.write(2, b'[I] ' + _REMARK + b' to 3\\nworse\\n'); os.write(1, b'inside\\n')\n"
        "os.write(2, b'after\\n'); os.close(2)\n"
        "with without_log_level_remark():\n"
        "    os.write(1, b'without\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"inside\nwithout\n", b"worse\nafter\n")


def test_ray_still_says_that_it_started_too_slowly_in_the_words_that_are_searched_for() -> None:
    assert started_too_slowly(Exception("The current node timed out during startup. This could happen because ..."))
    assert not started_too_slowly(ValueError("no such address"))
    assert "timed out during startup" in inspect.getsource(ray._private.node)


@pytest.mark.slow
def test_head_of_a_cluster_answers(ray_session: None) -> None:
    assert answers(ray.get_runtime_context().gcs_address, 20)


def test_working_directory_goes_along_without_what_it_says_to_ignore(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    for name in ("jobs/run.py", "images/a.jpg", "runs/b.png", ".git/c", ".venv/d"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("/runs/\n")
    (folder / ".rayignore").write_text("/images/\n")
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        assert {name for name in package.namelist() if not name.endswith("/")} == {
            ".gitignore",
            ".rayignore",
            "jobs/run.py",
        }
    assert ray_constants.DASHBOARD_CLIENT_MAX_SIZE == 100 << 20  # as README says


def test_ray_unpacks_working_directories_where_no_output_is_taken() -> None:
    assert in_ray_copy(f"/tmp/x/{ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME}/working_dir_files/_ray_pkg_1/out")
    assert 'os.path.join(resources_dir, "working_dir_files")' in inspect.getsource(working_dir)


def test_no_other_module_reaches_into_ray() -> None:
    inside = re.compile(r"\bray\.[\w.]*\b_\w+|map_batches_internal|callback_classes|autoscaling_config")
    files = [path for room in ("engine", "jobs", "tune", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in files if inside.search(path.read_text())] == ["ray_internals.py"]
