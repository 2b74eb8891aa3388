"""docs/faults.md names tests that exist."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 30
    for file, name in named:
        source = ROOT / file
        assert source.is_file(), file
        assert not name or f"def {name}(" in source.read_text(), f"{file}::{name}"
