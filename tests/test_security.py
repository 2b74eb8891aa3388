"""Nothing gets in by a file, and no secret gets out by one."""

from __future__ import annotations

import html
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.distributed.ray_internals import ENVIRONMENT
from engine.errors import StorageError
from engine.imaging.codecs import decode_map
from engine.imports.found import ReaderOptions
from engine.imports.parquet import read_parquet
from engine.records import mask_schema, shard_table
from engine.storage.filesystem import read_bytes
from engine.storage.pictures import parquet_uris, read_picture
from engine.storage.shards import read_shard, shard_path, write_shard
from engine.storage.truth import open_truth
from engine.storage.user_manifest import iter_manifest
from jobs import evaluate, label, report
from jobs.cli.command import main
from tests.conftest import ROOT
from tests.engine.stages.examples import write_network
from tests.poison import encode, good_cases, pixels, write_images

SECRET = "SECRETSECRETSECRET"


class Payload:
    """A pickle that would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture
def pickled(tmp_path: Path) -> tuple[pa.Array, Path]:
    """A column of Ray's type for pickled objects, and the folder that reading it would make."""
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    trap = tmp_path / "trap"
    storage = pa.array([pickle.dumps(Payload(trap))], pa.large_binary())
    return pa.ExtensionArray.from_storage(ArrowPythonObjectType(), storage), trap


@pytest.mark.parametrize("column", ["image", "image_id", "tags"])
def test_manifest_with_pickled_objects_is_refused_and_not_run(
    column: str, pickled: tuple[pa.Array, Path], tmp_path: Path
) -> None:
    values, trap = pickled
    columns = {"image": pa.array(["a.png"]), "tags": pa.array(["cat"]), column: values}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(StorageError, match=f"^data '.*: its column '{column}' holds objects of the type 'ray.data"):
        list(iter_manifest(str(tmp_path / "m.parquet")))
    assert not trap.exists()


def test_picture_or_mask_that_is_a_pickled_object_is_refused_and_not_run(
    pickled: tuple[pa.Array, Path], tmp_path: Path
) -> None:
    values, trap = pickled
    table = pa.table({"image_id": pa.array(["a"]), "image": values, "mask": values})
    pq.write_table(table, tmp_path / "shard-000000.parquet")
    [uri] = parquet_uris(str(tmp_path / "shard-000000.parquet"), "image")
    assert read_picture(uri) == values.storage[0].as_py()
    for read in (lambda: read_shard(str(tmp_path), 0), lambda: open_truth(str(tmp_path)).mask_of("a", "a.png")):
        with pytest.raises(StorageError, match="holds objects of the type"):
            read()
    nested = pa.StructArray.from_arrays([values], ["bytes"])
    pq.write_table(pa.table({"image_id": pa.array(["a"]), "mask": nested}), tmp_path / "shard-000000.parquet")
    with pytest.raises(StorageError, match="its column 'mask' holds objects"):
        read_shard(str(tmp_path), 0)
    assert not trap.exists()


@pytest.mark.parametrize("column", ["image", "label"])
def test_imported_column_of_pickled_objects_is_refused_and_not_run(
    column: str, pickled: tuple[pa.Array, Path], tmp_path: Path
) -> None:
    values, trap = pickled
    columns = {"image": pa.array(["a.png"]), "label": pa.array(["cat"]), column: values}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(StorageError, match=f"its column '{column}' holds objects of the type"):
        read_parquet(str(tmp_path / "x.parquet"), ReaderOptions(out=str(tmp_path)))
    assert not trap.exists()


def test_map_that_holds_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    np.save(tmp_path / "map.npy", np.array([Payload(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        decode_map((tmp_path / "map.npy").read_bytes())
    assert not trap.exists()


def _texts(folder: Path) -> str:
    """All that a run wrote, Parquet files row by row."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet" or path.name == "manifest":
            file = pq.ParquetFile(path)
            found += [str(file.schema_arrow.metadata), str(file.read().to_pylist())]
    return "\n".join(found)


@pytest.mark.slow
def test_no_secret_is_written_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ray_session: None
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    good = good_cases(2)
    data = write_images(tmp_path / "data", good)
    with Path(data).open("a") as file:
        file.write("ftp://host/a.png,cat\nnowhere.png,cat\n")
    cam = write_network(tmp_path / "cam", "cam")
    arguments = [f"--data={data}", f"--cam={cam}", f"--out={tmp_path}/out", "--preset=tiny", "--walk.num-steps=0"]
    options = ["--cam.inference.long-side-px=64", "--crf.num-iterations=0", "--max-error-fraction=1"]
    assert main(label.Label, label.run, [*arguments, *options]) in (0, 1)
    refused_data = tmp_path / "data" / "refused.csv"
    for scheme in ("s3", "https"):
        refused_data.write_text(f"image,tags\n{scheme}://user:{SECRET}@bucket/a.png,cat\n")
        assert main(label.Label, label.run, [f"--data={refused_data}", *arguments[1:], f"--out={tmp_path}/2"]) == 2
    for option in ("data", "cam", "out"):
        for scheme in ("s3", "https"):
            where = f"--{option}={scheme}://user:{SECRET}@bucket/{option}.csv"
            assert main(label.Label, label.run, [*arguments, f"--out={tmp_path}/3", where]) == 2
    report.run(report.Report(data=data, masks=str(tmp_path / "out")))
    with pytest.raises(OSError, match=r"^'s3://bucket/a.png' failed") as refused:
        read_bytes("s3://bucket/a.png", patience_s=0)
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err + str(refused.value)
    assert json.loads((tmp_path / "out" / ".tag2mask" / "summary.json").read_text())["images"] == 4
    for folder in ("out", "2", "3"):
        assert SECRET not in _texts(tmp_path / folder)


def test_report_shows_names_and_tags_as_text(tmp_path: Path) -> None:
    attack = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
    image = f"{attack.replace('/', '')}.png"
    schema = mask_schema(keep_stages=False, metadata={"tag2mask": json.dumps({"class_names": [attack]})})
    (tmp_path / image).write_bytes(encode(pixels()))
    (tmp_path / "m.jsonl").write_text(json.dumps({"image": image, "tags": [attack]}) + "\n")
    mask = encode(pixels().convert("L").point(lambda _: 1))
    rows: dict[str, list[Any]] = {
        "image_id": [image, attack],
        "image": [image, attack],
        "height": [24, None],
        "width": [32, None],
        "tags": [[attack], [attack]],
        "mask": [mask, None],
        "areas": [[0.0, 1.0], None],
        "confidence": [0.5, None],
        "error": [None, f"fetch: {attack}"],
    }
    write_shard(str(tmp_path / "out"), 0, shard_table(rows, schema))
    (tmp_path / "out" / "run.json").write_text(json.dumps({"settings": {"odd": attack}, "class_names": [attack]}))
    report.run(report.Report(data=str(tmp_path / "m.jsonl"), masks=str(tmp_path / "out")))
    page = (tmp_path / "out" / ".tag2mask" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert html.escape("<img src=x onerror", quote=False) in page


def test_dashboard_is_off_or_on_loopback_alone() -> None:
    code = (
        "import ray, json, sys; calls = []; ray.init = lambda *a, **k: calls.append(k); ray.shutdown = lambda: None;"
        "ray.is_initialized = lambda: False; ray.cluster_resources = lambda: {};"
        "from engine.distributed.cluster import connected; from engine.config import ResourceConfig\n"
        "with connected(ResourceConfig()): pass\n"
        "print(json.dumps(calls[0], default=str))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    asked = json.loads(done.stdout.splitlines()[-1])
    assert asked["include_dashboard"] is False or asked.get("dashboard_host") in (None, "127.0.0.1", "localhost")
    assert ENVIRONMENT["RAY_USAGE_STATS_ENABLED"] == "0"
    assert set(re.findall(r"dashboard-host=(\S+)", (ROOT / "cluster.yaml").read_text())) <= {"127.0.0.1"}


def test_reading_back_what_is_scored_runs_nothing(pickled: tuple[pa.Array, Path], tmp_path: Path) -> None:
    values, trap = pickled
    table = pa.table({"image_id": pa.array(["a"]), "image": pa.array(["a.png"]), "mask": values})
    pq.write_table(table, shard_path(str(tmp_path), 0))
    status = main(evaluate.Evaluate, evaluate.run, [f"--masks={tmp_path}", f"--truth={tmp_path}"])
    assert status == 2
    assert not trap.exists()
