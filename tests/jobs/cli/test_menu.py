"""The command that lists the jobs and runs one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from jobs.cli.menu import ORDER, main
from tests.conftest import ROOT


def _python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_list_has_every_job_in_the_order_of_use_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("  ")]
    files = {path.stem for path in (ROOT / "jobs").glob("[!_]*.py")} | {"search"}
    assert {line.split()[0].replace("-", "_") for line in lines} == files
    assert [line.split()[0] for line in lines][: len(ORDER)] == list(ORDER)
    assert all(len(line) <= 100 and len(line.split()) > 3 and "``" not in line for line in lines)
    assert _python("-m", "jobs") == _python("-m", "tag2mask", "--help") == shown


def test_list_may_lose_its_reader() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tag2mask"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_version_is_that_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tag2mask {engine.__version__}\n"


def test_unknown_job_is_one_line_that_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lable"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: unknown job 'lable'; choose one of demo, ")
    assert "train-cam" in said


def test_job_runs_under_its_name_with_either_letter(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    for name in ("make-scenes", "make_scenes"):
        assert main([name, f"--out={tmp_path}", "--num-images=1", "--width=96", "--height=96"]) == 0
    assert "found 1 scenes" in capsys.readouterr().out


def test_mistake_in_an_option_ends_with_status_2_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "--wlak.alpha=3"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")


@pytest.mark.parametrize("arguments", [[], ["run", "--help"]])
def test_list_and_help_load_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print('loaded', {'ray', 'torch'} & set(sys.modules)));"
        "from jobs.cli.menu import main; sys.exit(main())"
    )
    shown = _python("-c", code, *arguments)
    assert shown.splitlines()[-1] == "loaded set()"
    assert len(shown.splitlines()) > 15


def test_completion_knows_jobs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    script = capsys.readouterr().out
    assert all(word in script for word in ("tag2mask", "train-cam", "--walk.alpha", "--keep-stages"))


def test_job_in_a_folder_whose_file_hides_a_package_says_so(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("")
    for command in (
        ["-m", "jobs.label"],
        ["-P", "-m", "jobs.label"],
        ["-m", "tag2mask"],
        ["-c", "import tag2mask; tag2mask.label_images"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == (1 if "-c" in command else 2)
        last = done.stderr.splitlines()[-1]
        assert f"'{tmp_path / 'engine.py'}' hides the package 'engine' of tag2mask; rename it" in last
        assert len(done.stderr.splitlines()) == 1 or "-c" in command
