"""Listing and running the modules of benchmarks and experiments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import menu


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("swim",), 2), (("--help",), 0)])
@pytest.mark.parametrize(("package", "known"), [("benchmarks", "pipeline"), ("experiments", "ablation")])
def test_without_a_known_name_the_modules_are_listed(
    package: str, known: str, arguments: tuple[str, ...], status: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    assert f"python -m {package} NAME" in done.stderr
    assert f"\n  {known} " in done.stderr


def test_modules_without_a_main_are_not_listed() -> None:
    assert {"runner", "photographs", "menu"}.isdisjoint(menu.names("benchmarks"))
    assert "objectives" not in menu.names("experiments")


@pytest.mark.parametrize("package", ["benchmarks", "experiments"])
def test_every_module_names_its_command(package: str) -> None:
    for name in menu.names(package):
        source = (Path(__file__).parents[2] / package / f"{name}.py").read_text()
        assert f"python -m {package} {name}" in source.split('"""')[1]


def test_the_named_module_gets_the_rest_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "walk", "--sides", "9", "--num-steps", "16", "--repeats", "1"])
    assert menu.run("benchmarks") == 0
    assert "9x9" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "nowhere")
    monkeypatch.setattr(
        sys, "argv", ["experiments", "confidence", "--data", ".", "--truth", ".", "--cam", missing, "--affinity", "."]
    )
    assert menu.run("experiments") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert missing in said
