"""A command under its supervisor ends by a signal at any moment, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

START = "import os, signal, subprocess, sys, threading, time\nfrom jobs.cli.supervisor import supervise\nsupervise()\n"
WAIT = "print('ready', flush=True)\ntime.sleep(100)\n"
# as Ray and Ray Train do; and a call that keeps the interpreter lock
OWN_HANDLERS = "[signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)]\n" + WAIT
HOLDS_LOCK = "import ctypes\nprint('ready', flush=True)\nctypes.PyDLL(None).sleep(100)\n"
# as a worker whose parent has died: of another session, with init for a parent
FAMILY = (
    "orphan = ['setsid', '-f', 'sleep', '100']\n"
    "subprocess.run(orphan)\nsubprocess.Popen(['sleep', '100'], preexec_fn=os.setsid)\n" + WAIT
)
MARK = "TAG2MASK_TEST_SUPERVISOR"


def _started(code: str, *arguments: str, mark: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START + code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _left(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:  # no process, gone, or another user's
            continue
    return found


@pytest.mark.parametrize("code", [WAIT, OWN_HANDLERS, HOLDS_LOCK, FAMILY], ids=["waits", "handlers", "lock", "family"])
@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGTERM], 143),
    ],
)
def test_signal_ends_the_job_and_its_processes_with_one_line(
    code: str, signals: list[signal.Signals], status: int, tmp_path: Path
) -> None:
    with _started(code, "--data", "m.csv", "--out", "runs/x", mark=str(tmp_path)) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        start = time.monotonic()
        for number in signals:
            job.send_signal(number)
        _, err = job.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert job.returncode == status
    assert err == "interrupted: completed work in 'runs/x' is kept; rerun the command to resume\n"
    assert _left(str(tmp_path)) == []


def test_both_processes_may_be_signaled_as_a_terminal_does(tmp_path: Path) -> None:
    code = START + "print(os.getpid(), flush=True)\ntime.sleep(100)\n"
    job = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, process_group=0, cwd=ROOT)
    assert job.stdout is not None
    assert int(job.stdout.readline()) != job.pid
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert (job.returncode, err) == (130, "interrupted: rerun the command to resume\n")


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("print('done')", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("raise ValueError('odd')", 1, "ValueError: odd\n"),
        ("os.abort()", 1, "failed: the process was killed by SIGABRT; rerun the command to resume\n"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            1,
            "failed: the process was killed by SIGKILL (possibly out of memory); rerun the command to resume\n",
        ),
    ],
)
def test_command_ends_with_the_status_of_the_job(code: str, status: int, words: str) -> None:
    with _started(code) as job:
        _, err = job.communicate(timeout=60)
    assert job.returncode == status
    assert err.endswith(words)
    assert bool(err) == bool(words)


def test_job_does_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with _started(WAIT, mark=str(tmp_path)) as job:
        assert job.stdout is not None
        job.stdout.readline()
        assert len(_left(str(tmp_path))) == 2
        job.kill()
        job.communicate(timeout=60)  # until the job has closed the pipes as well
    assert _left(str(tmp_path)) == []


def test_processes_of_the_job_can_be_ended_by_sigterm() -> None:
    code = "one = subprocess.Popen(['sleep', '100'], preexec_fn=lambda: None)\none.terminate()\nprint(one.wait())"
    with _started(code) as job:
        out, _ = job.communicate(timeout=60)
    assert out == f"{-signal.SIGTERM}\n"


def test_mistake_in_the_options_is_said_in_one_line_before_the_imports() -> None:
    code = "from jobs.cli.start import begin; import sys; begin('jobs.label', ['--walk.alfa', '3'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    *starting, said = done.stderr.splitlines()
    assert said.startswith("error: ")
    assert starting in ([], ["[label] starting"])  # a busy machine


@pytest.mark.parametrize("name", ["jobs.make_scenes", "tune.search"])
def test_command_is_supervised_before_its_imports(name: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(100)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", name, "--out=x"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, cwd=tmp_path) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "importing\n"
        job.terminate()
        _, err = job.communicate(timeout=60)
    assert job.returncode == 143
    assert err.endswith("interrupted: completed work in 'x' is kept; rerun the command to resume\n")
