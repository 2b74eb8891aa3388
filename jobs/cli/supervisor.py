"""Supervise a job: a small parent process waits for signals while its child does the work.

A job cannot reliably end itself. Python handles signals only between bytecodes, so an import or a C++ call delays them.
Ray and Ray Train install their own handlers: one prints a stack dump, another drains for minutes. Ray's processes
outlive the driver by up to a minute. The parent imports nothing slow, so it always responds: it kills the job and all
its descendants, prints one line, and exits with status 130 or 143. Killing is safe because shards and checkpoints are
written atomically. On a cluster that the job joined, Ray ends the actors of a dead driver.
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
"""Seconds to wait for killed processes; one blocked in the kernel, e.g. on a dead disk, is then abandoned."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_SHOW_CURSOR = "\x1b[?25h\n"

_is_supervised = False


def supervise() -> None:
    """Fork and continue in the child, which dies when this process is signaled; later calls do nothing.

    Call it before the process starts threads or prints anything, and therefore before a job's slow imports.
    """
    global _is_supervised
    if _is_supervised or sys.platform != "linux":
        return  # elsewhere Ctrl-C is a KeyboardInterrupt
    _is_supervised = True
    parent = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if inherited as ignored, there would be no exit status to collect
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD})
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans remain descendants of this process
    child = os.fork()
    if child:
        _watch(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(FAILED)
    # A terminal and `ray job stop` signal the child too, so signals stay blocked in it. Its own children must unblock
    # them, because Ray ends its processes by SIGTERM.
    os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING))


def _watch(child: int) -> NoReturn:
    """Wait for the child to end or for a signal, and exit with the matching status."""
    status = None
    while status is None:
        number = signal.sigwait({*STOPPING, signal.SIGCHLD})
        status = _reaped(child)
        if status is None and number in STOPPING:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _print(f"interrupted: {_kept_output()}rerun the command to resume")
            _kill_descendants()
            os._exit(128 + number)
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (possibly out of memory)" if -status == signal.SIGKILL else ""
        _print(f"failed: the process was killed by {name}{hint}; {_kept_output()}rerun the command to resume")
        _kill_descendants()
        os._exit(FAILED)
    os._exit(status)


def _reaped(child: int) -> int | None:
    """Reap ended processes; returns the child's exit status (negative: a signal), or None while it runs."""
    status = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = os.waitstatus_to_exitcode(ended[1])
    return status


def _kept_output() -> str:
    """Say that the output is kept, if the command line has ``--out``."""
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        name, _, attached = option.partition("=")
        if name == "--out" and (attached or value):
            return f"completed work in '{attached or value}' is kept; "
    return ""


def _print(text: str) -> None:
    """Print a line to standard error, unless it would block."""
    if select.select([], [2], [], 1.0)[1]:
        with suppress(OSError):
            os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}{text}\n".encode())


def _kill_descendants() -> None:
    end, num_empty = time.monotonic() + END_WITHIN_S, 0
    # twice: a process whose parent dies while /proc is read belongs to nobody for that moment
    while num_empty < 2 and time.monotonic() < end:
        left = _descendants()
        num_empty = 0 if left else num_empty + 1
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reaped(0)


def _descendants() -> set[int]:
    """Return the process ids of all live descendants of this process."""
    parents = _parents()
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _parents() -> dict[int, int]:
    """Map every live process to its parent."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", errors="replace") as file:  # it may have ended
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(name)] = int(parent)
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
