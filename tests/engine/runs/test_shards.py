"""What a job says of its shards where none is left to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import TooManyErrors
from engine.records import mask_schema
from engine.runs.shards import check_errors, label_shards
from tests.engine.runs.examples import options_for, write_data, write_output

SUMMARY: dict[str, Any] = {"missing_shards": [], "shards": 3, "images": 10, "errors": {}}


def test_times_are_those_of_the_run_that_did_the_work(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    claimed = write_output(tmp_path / "masks", data, "label")
    options = options_for(data, tmp_path / "masks")
    schema = mask_schema(keep_stages=False, metadata={})
    path = tmp_path / "masks" / ".tag2mask" / "summary.json"
    first = label_shards(options, claimed, schema=schema, steps=[])  # killed before it had summed up
    assert (first["images"], first["labeled"], first["errors"], first["missing_shards"]) == (5, 5, {}, [])
    assert first["config_hash"] == claimed.hash
    path.write_text(json.dumps({**first, "seconds": 77.0}))
    assert label_shards(options, claimed, schema=schema, steps=[])["seconds"] == 77.0
    path.write_text(json.dumps({**first, "seconds": 77.0, "errors": {"fetch": 1}}))  # of other rows than lie there
    assert label_shards(options, claimed, schema=schema, steps=[])["seconds"] < 77.0
    assert json.loads(path.read_text())["errors"] == {}


def test_more_errors_than_allowed_are_counted_by_stage(tmp_path: Path) -> None:
    options = replace(options_for("m.csv", tmp_path / "out"), max_error_fraction=0.3)
    check_errors({**SUMMARY, "errors": {"fetch": 3}}, options)
    with pytest.raises(TooManyErrors) as failed:
        check_errors({**SUMMARY, "errors": {"decode": 1, "fetch": 3}}, options)
    assert str(failed.value) == (
        "4 of 10 images ended in an error (fetch: 3, decode: 1), more than max_error_fraction 0.3; "
        f"see the column error in {tmp_path / 'out'}"
    )


def test_shards_that_could_not_be_done_are_said_first(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyErrors, match=r"^2 of 3 shards could not be processed \(the first: 1\); rerun the command"
    ):
        check_errors({**SUMMARY, "missing_shards": [1, 2], "errors": {"fetch": 9}}, options_for("m", tmp_path))
