"""Options of the search that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError, StorageError
from jobs.cli.command import main, parse
from tests.tune.conftest import arguments
from tune import search


def test_mistakes_are_said_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"alphas must be numbers above 0, got \(0.0, 1.0\)"):
        parse(search.Search, arguments(folder, "wrong", "--alphas", "0", "1"))
    with pytest.raises(StorageError, match="truth"):
        search.run(parse(search.Search, arguments(folder, "wrong", "--truth", str(folder / "cam"))))
    assert main(search.Search, search.run, arguments(folder, "wrong", "--folds", "1")) == 2
    assert "--folds" in capsys.readouterr().err
    for wrong, said in (
        (("--affinity", ""), "--affinity is missing"),
        (("--crf-values", "bilateral-weight=4"), "--crf-values"),
        (("--seed-alphas-low", "1"), "--seed-alphas-high"),
        (("--cam-scales", "big"), "--cam-scales"),
        (("--search", "optuna", "--betas", "4"), "--betas must have a minimum and a different maximum"),
    ):
        assert main(search.Search, search.run, arguments(folder, "wrong", *wrong)) == 2
        assert said in capsys.readouterr().err
    assert not (folder / "wrong").exists()
