"""The display by its own clock, on a terminal and off it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from engine.display import duration
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (70, "70 s"), (740, "12 min"), (12_000, "3 h 20 min"), (6000, "1 h 40 min")]
)
def test_duration_is_said_in_the_units_that_say_enough(seconds: float, words: str) -> None:
    assert duration(seconds) == words


LONG = """
import engine.display
engine.display.LINE_EVERY_S = 0.5
import time
from engine.progress import Meter, doing, job
with job("label"):
    with doing("starting Ray"):
        time.sleep(2.2)
    with Meter("label", 3, unit="images") as meter:
        for done in (1, 2, 3):
            meter.update(done)
            time.sleep(0.1)
print("results")
"""


def test_lines_come_by_themselves_and_results_stay_apart() -> None:
    done = subprocess.run([sys.executable, "-c", LONG], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "results\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "[label] running for 0 s" or lines[0].startswith("[label] starting Ray")
    assert any(line.startswith("[label] starting Ray (") for line in lines)
    assert lines[-1].startswith("[label] done: 3 of 3 images in ")


def test_terminal_has_bars_that_leave_no_trace_and_results_keep_their_file() -> None:
    parent, child = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", LONG], cwd=ROOT, stdout=-1, stderr=child) as process:
        os.close(child)
        seen = b""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                seen += os.read(parent, 4096)
            except OSError:  # the other end is closed
                break
        assert process.communicate()[0] == b"results\n"
    os.close(parent)
    text = seen.decode()
    assert "starting Ray" in text
    assert "3 of 3 images" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
