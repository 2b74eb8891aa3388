"""The process that a command starts: it waits for signals while its child does the work.

A job cannot end itself at any moment. Python handles signals between two bytecodes only, so an import or a C++ call
delays them; Ray and Ray Train install handlers of their own, of which one prints a stack dump and another drains for
minutes; and Ray's processes outlive the driver by up to a minute. This process imports nothing, so it always answers:
it kills the job and all its descendants, says so in one line, and ends with status 130 or 143. To kill is safe: shards
and checkpoints are written whole or not at all. On a cluster that the job has joined, Ray ends the actors of a driver
that is gone.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import NoReturn

STOPPING = {signal.SIGINT, signal.SIGTERM}
FAILED = 1
END_WITHIN_S = 7.0
"""Seconds after which a process that even SIGKILL does not end, as one that waits for a dead disk, is given up."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_SHOW_CURSOR = "\x1b[?25h\n"

_is_supervised = False


def supervise() -> None:
    """Continue in a child process that a signal to this one ends; only the first call does anything.

    It must come before the process has threads or has printed anything, and so before the imports of a job, which take
    seconds.
    """
    global _is_supervised
    if _is_supervised or sys.platform != "linux":
        return  # elsewhere Ctrl-C is a KeyboardInterrupt
    _is_supervised = True
    parent = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it hands that on, and no status would come
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD})
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # processes whose parent dies stay descendants of this one
    child = os.fork()
    if child:
        _watch(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed before that
        os._exit(FAILED)
    # a terminal and `ray job stop` signal the child too, in which they stay blocked; Ray ends its processes by SIGTERM
    os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING))


def _watch(child: int) -> NoReturn:
    """Wait for the child or for a signal, and end with its status."""
    status = None
    while status is None:
        number = signal.sigwait({*STOPPING, signal.SIGCHLD})
        status = _reaped(child)
        if status is None and number in STOPPING:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _say(f"interrupted: {_kept()}rerun the command to resume")
            _kill_descendants()
            os._exit(128 + number)
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
        _say(f"failed: the process was ended by {name}{hint}; {_kept()}rerun the command to resume")
        _kill_descendants()
        os._exit(FAILED)
    os._exit(status)


def _reaped(child: int) -> int | None:
    """Collect the processes that have ended; the child's exit status, negative if a signal ended it, once it has."""
    status = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = os.waitstatus_to_exitcode(ended[1])
    return status


def _kept() -> str:
    """What the job leaves, from its option ``--out``."""
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        name, _, attached = option.partition("=")
        if name == "--out" and (attached or value):
            return f"completed work in '{attached or value}' is kept; "
    return ""


def _say(text: str) -> None:
    """Print a line, unless nobody reads on."""
    if select.select([], [2], [], 1.0)[1]:
        with suppress(OSError):
            os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}{text}\n".encode())


def _kill_descendants() -> None:
    end = time.monotonic() + END_WITHIN_S
    while (left := _descendants()) and time.monotonic() < end:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reaped(0)


def _descendants() -> set[int]:
    """Processes that this one has started, and those that they have, as far as they are alive."""
    parents = _parents()
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _parents() -> dict[int, int]:
    """The parent of every process that is alive."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", errors="replace") as file:  # or it is gone by now
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(name)] = int(parent)
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
