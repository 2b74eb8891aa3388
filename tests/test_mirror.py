"""Every source file has its test file at the mirrored path, or a place in the lists below; no test file is left."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("benchmarks", "engine", "experiments", "jobs", "tune")
TOGETHER = {
    # every format is held against the same labels
    "engine/export/test_formats.py": (
        "engine/export: coco datasets fiftyone format label_studio png voc webdataset yolo"
    ),
    "engine/imports/test_found.py": "engine/imports: files remarks",
    "engine/storage/sources/test_sources.py": "engine/storage/sources: parquet rows text",
    "engine/storage/sources/test_columns.py": "engine/storage/sources: long_form",
    "engine/storage/test_pictures.py": "engine/storage: parquet_pages thrift",
    "engine/imaging/test_decoding.py": "engine/imaging: pixels",
    # tested through the class or function that callers use
    "engine/storage/test_manifest.py": "engine/storage: class_names plain_columns user_manifest",
    "engine/storage/test_dataset.py": "engine/storage: labeled",
    "engine/inspection/test_findings.py": "engine/inspection: pictures",
    "engine/imaging/test_memory.py": "engine/imaging: batches",
    "engine/fitting/test_sample_order.py": "engine/storage: subsets",
    "engine/fitting/test_learner.py": "engine/fitting: averaging",
    "engine/distributed/test_training.py": "engine/fitting: events",
    "engine/test_config.py": "engine: checks resources",
    "engine/test_chain.py": "engine: step",
    "jobs/test_export_network.py": "engine/export: network",
    "jobs/cli/test_supervisor.py": "jobs/cli: start",
    # a job is a few lines around engine.runs: one run of the whole chain tries them all
    "jobs/test_chain.py": "jobs: check_tags label make_seeds segment train_segmentation",
}
"""Test files of several source files."""
UNTESTED = {
    "benchmarks/chaos": "the long form of tests/jobs/test_chaos.py",
    "benchmarks/pipeline": "prints what jobs.label measures",
    "benchmarks/search": "prints what tune.search measures",
    "benchmarks/signals": "the long form of tests/jobs/test_signals.py",
    "benchmarks/search_check": "compares two of the program's own figures",
}
"""Source files without a test, and why."""
ACROSS = {
    "deploy/test_clusters.py": "cluster.yaml and deploy/cluster-gcp.yaml",
    "deploy/test_drain.py": "deploy/drain.sh",
    "deploy/test_install.py": "deploy/install.sh and deploy/Dockerfile",
    "deploy/test_rayjob.py": "deploy/rayjob.yaml",
    "deploy/test_slurm.py": "deploy/slurm.sh",
    "engine/ops/test_properties.py": "hypothesis over all ops",
    "engine/report/test_browser.py": "the page in a browser",
    "engine/storage/test_properties.py": "hypothesis over all that is written and read",
    "engine/storage/test_store_faults.py": "a store that fails, in every way",
    "engine/test_full_disk.py": "a disk that is full, at every file",
    "engine/test_start_up.py": "what the import of each package may load",
    "examples/test_notebook.py": "the notebook",
    "jobs/test_chaos.py": "deaths of every kind",
    "jobs/test_kill_training.py": "deaths of a training",
    "jobs/test_nodes.py": "several nodes",
    "jobs/test_poison.py": "bad input of every kind",
    "jobs/test_s3.py": "the chain on S3",
    "jobs/test_signals.py": "Ctrl-C and SIGTERM at random moments",
    "jobs/test_submit.py": "ray job submit",
    "test_audit.py": ".ci/audit.py",
    "test_docs.py": "README and docs",
    "test_faults_doc.py": "docs/faults.md",
    "test_golden.py": "the masks, end to end",
    "test_mirror.py": "this",
    "test_tag2mask.py": "the public names",
    "test_security.py": "the boundary of trust",
    "tune/test_search_runs.py": "a search that is killed",
}
"""Test files of no single source file, and what they hold."""


def _sources() -> set[str]:
    """Source files, without the ending."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__" not in path.name]
    return {path.relative_to(ROOT).with_suffix("").as_posix() for path in files}


def _mirror(source: str) -> str:
    folder, _, name = source.rpartition("/")
    return f"{folder}/test_{name}.py"


def _tested_together() -> dict[str, str]:
    """Source file to the test file that :data:`TOGETHER` names."""
    found: dict[str, str] = {}
    for test, text in TOGETHER.items():
        for part in text.split("; "):
            folder, _, names = part.partition(": ")
            found |= {f"{folder}/{name}": test for name in names.split()}
    return found


def test_every_source_file_has_its_test_file() -> None:
    tests, together = _tests(), _tested_together()
    without = {source for source in _sources() if _mirror(source) not in tests}
    assert without - together.keys() - UNTESTED.keys() == set()


def test_every_test_file_has_its_source_file() -> None:
    mirrors = {_mirror(source) for source in _sources()}
    assert _tests() - mirrors - ACROSS.keys() - TOGETHER.keys() == set()


def test_no_exception_is_out_of_date() -> None:
    tests, sources, together = _tests(), _sources(), _tested_together()
    assert ACROSS.keys() | TOGETHER.keys() <= tests
    exceptions = together.keys() | UNTESTED.keys()
    assert exceptions <= sources
    assert not {source for source in exceptions if _mirror(source) in tests}
    assert not ACROSS.keys() & {_mirror(source) for source in sources}


def _tests() -> set[str]:
    folder = ROOT / "tests"
    return {Path(path).relative_to(folder).as_posix() for path in folder.rglob("test_*.py")}
