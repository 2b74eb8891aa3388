"""engine/storage/run_record.py: whose a folder is, and what is written beside the output."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import engine
from engine.errors import OutputError, StorageError
from engine.storage import filesystem
from engine.storage.run_record import claim_output, commit, fingerprint, read_json, read_record, versions, write_json
from engine.storage.shards import write_shard
from tests.s3_server import S3Server


def record(beta: float = 8.0, data: str = "abc") -> dict[str, Any]:
    settings = {"walk": {"beta": beta, "num_steps": 256}, "cam": {"scales": (0.5, 1.0)}}
    return {"job": "label", "settings": settings, "inputs": {"data": data}, "versions": versions(), "commit": commit()}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An output folder that does not exist yet, on disk or in a bucket."""
    if request.param == "local":
        return str(tmp_path / "out")
    s3: S3Server = request.getfixturevalue("s3")
    return s3.make_bucket(f"record-{uuid.uuid4().hex[:12]}") + "/out"


def test_fingerprint_depends_on_values_and_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": (1, 2)}}) == fingerprint({"b": {"c": [1, 2]}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16


def test_new_folder_is_claimed_and_the_same_run_may_continue(out: str) -> None:
    claim_output(out, record(), overwrite=False)
    before = filesystem.read_bytes(filesystem.join(out, "run.json"))
    claim_output(out, {**record(), "versions": {}, "commit": "other"}, overwrite=False)
    assert filesystem.read_bytes(filesystem.join(out, "run.json")) == before
    assert json.loads(before)["settings"]["cam"]["scales"] == [0.5, 1.0]


def test_settings_that_do_not_decide_the_result_are_brought_up_to_date(out: str) -> None:
    first = {**record(), "other_settings": {"crf": {"num_iterations": 10}}, "commit": "first"}
    claim_output(out, first, overwrite=False)
    changed = {**record(), "other_settings": {"crf": {"num_iterations": 5}}, "commit": "other"}
    claim_output(out, changed, overwrite=False)
    found = read_json(filesystem.join(out, "run.json"))
    assert found is not None
    assert found["other_settings"] == changed["other_settings"]
    assert found["commit"] == "first"


def test_run_that_made_nothing_has_no_claim(out: str) -> None:
    claim_output(out, record(), overwrite=False)
    filesystem.write_bytes(filesystem.join(out, ".tag2mask", "manifest"), b"x")
    claim_output(out, record(beta=4.0), overwrite=False)
    found = read_json(filesystem.join(out, "run.json"))
    assert found is not None
    assert found["settings"]["walk"]["beta"] == 4.0
    assert not filesystem.exists(filesystem.join(out, ".tag2mask", "manifest"))


def test_folder_that_lost_all_but_what_is_hidden_starts_afresh(out: str) -> None:
    claim_output(out, record(), overwrite=False)
    write_shard(out, 0, pa.table({"image_id": ["a"]}))
    filesystem.write_bytes(filesystem.join(out, ".tag2mask", "manifest"), b"of the old images")
    for name in ("run.json", "shard-000000.parquet"):  # rm -r out/*
        filesystem.delete_file(filesystem.join(out, name))
    claim_output(out, record(data="xyz"), overwrite=False)
    assert list(filesystem.list_entries(out)) == ["run.json"]


def test_record_beside_shards_is_hidden_and_tells_whose_they_are(out: str) -> None:
    claim_output(out, record(), overwrite=False, hidden=True)
    write_shard(out, 0, pa.table({"image_id": ["a"]}))
    assert sorted(filesystem.list_entries(out)) == [".tag2mask", "shard-000000.parquet"]
    claim_output(out, record(), overwrite=False, hidden=True)
    with pytest.raises(OutputError, match=r"contains the output of another run \(settings.walk.beta: 8.0 -> 4.0\)"):
        claim_output(out, record(beta=4.0), overwrite=False)
    filesystem.delete_file(filesystem.join(out, "shard-000000.parquet"))  # rm -r out/*
    claim_output(out, record(beta=4.0), overwrite=False, hidden=True)
    found = read_record(out)
    assert found is not None
    assert found["settings"]["walk"]["beta"] == 4.0
    claim_output(out, record(), overwrite=True)  # by a job whose record lies in the open
    assert list(filesystem.list_entries(out)) == ["run.json"]


def test_folder_of_a_living_process_is_not_taken_before_its_first_shard(tmp_path: Path) -> None:
    out = str(tmp_path)
    claim_output(out, record(), overwrite=False)
    with subprocess.Popen(["sleep", "60"]) as other:
        written = {**json.loads((tmp_path / "run.json").read_text())}
        written["process"]["id"] = other.pid
        write_json(str(tmp_path / "run.json"), written)
        with pytest.raises(OutputError, match=rf"is in use by another run with other settings \(process {other.pid}\)"):
            claim_output(out, record(beta=4.0), overwrite=False)
        claim_output(out, record(), overwrite=False)
        other.kill()
    claim_output(out, record(beta=4.0), overwrite=False)


def test_other_settings_are_refused_with_what_differs(out: str) -> None:
    claim_output(out, record(), overwrite=False)
    write_shard(out, 0, pa.table({"image_id": ["a"]}))
    with pytest.raises(OutputError) as caught:
        claim_output(out, record(beta=4.0, data="xyz"), overwrite=False)
    assert str(caught.value) == (
        f"out '{out}' contains the output of another run (inputs.data: abc -> xyz; settings.walk.beta: 8.0 -> 4.0)"
    )


def test_overwrite_deletes_what_the_engine_wrote_and_nothing_else(out: str) -> None:
    claim_output(out, record(), overwrite=False)
    for name in (".tag2mask/manifest", "weights.safetensors", "summary.json"):
        filesystem.write_bytes(filesystem.join(out, name), b"x")
    for shard in range(3):
        write_shard(out, shard, pa.table({"image_id": ["a"]}))
    kept = ["notes.txt", "shard-1.parquet", "mine/shard-000000.parquet"]
    for name in kept:
        filesystem.write_bytes(filesystem.join(out, name), b"x")
    claim_output(out, record(beta=4.0), overwrite=True)
    assert sorted(filesystem.list_entries(out)) == ["mine", "notes.txt", "run.json", "shard-1.parquet"]
    assert filesystem.exists(filesystem.join(out, kept[2]))
    found = read_json(filesystem.join(out, "run.json"))
    assert found is not None
    assert found["settings"]["walk"]["beta"] == 4.0


def test_folder_with_foreign_files_is_refused(out: str) -> None:
    filesystem.write_bytes(filesystem.join(out, "photo.jpg"), b"x")
    with pytest.raises(OutputError, match=r"^out .* contains files but no run.json .*photo.jpg"):
        claim_output(out, record(), overwrite=False)
    assert sorted(filesystem.list_entries(out)) == ["photo.jpg"]


def test_folder_that_a_killed_run_left_is_claimed(tmp_path: Path) -> None:
    (tmp_path / ".tag2mask").mkdir()
    (tmp_path / ".run.json.0123.tmp").write_text("{")
    claim_output(str(tmp_path), record(), overwrite=False)
    assert (tmp_path / "run.json").is_file()


def test_damaged_record_is_refused_and_may_be_overwritten(tmp_path: Path) -> None:
    for content in ("{", "[1]", ""):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(OutputError, match=r"run.json' is damaged"):
            claim_output(str(tmp_path), record(), overwrite=False)
    claim_output(str(tmp_path), record(), overwrite=True)
    claim_output(str(tmp_path), record(), overwrite=False)


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(StorageError, match=r"^out .* is a file, not a folder"):
            claim_output(str(tmp_path / "file"), record(), overwrite=overwrite)
    with pytest.raises(StorageError, match="is a file, not a folder"):
        claim_output(str(tmp_path / "file" / "below"), record(), overwrite=False)


def test_json_file_comes_back_and_a_missing_one_is_none(tmp_path: Path) -> None:
    location = str(tmp_path / "folder" / "values.json")
    assert read_json(location) is None
    write_json(location, {"name": "猫", "list": [1, 2.5, None]})
    assert read_json(location) == {"name": "猫", "list": [1, 2.5, None]}
    assert Path(location).read_text().startswith('{\n  "name": "猫"')


def test_versions_and_commit_describe_this_checkout() -> None:
    assert versions()["tag2mask"] == engine.__version__
    assert versions()["pyarrow"] == pa.__version__
    root = Path(engine.__file__).parents[1]
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert commit().startswith(head.stdout.strip())
