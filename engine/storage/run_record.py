"""Record a run's settings, inputs and versions in its output folder, and claim the folder for one run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import engine
from engine.errors import MissingError, OtherRunError, OutputError, about
from engine.plain_settings import differences, shortened
from engine.storage import filesystem, shards
from engine.storage.probes import check_writable

RECORD_NAME = "run.json"
WORK_FOLDER = ".tag2mask"
"""Hidden folder for internal files, such as the frozen manifest, and for the records of jobs that write shards."""
VALUE_RANGE = "value_range"
"""Entry of a record: black and white of images of more than 8 bits, where they are given or were measured."""
SYNONYMS = "synonyms"
"""Entry of a record: other names of the classes, where there are any."""

_OWN_FILES = ("weights.safetensors", "summary.json", "evaluation.json", "report.html")
_COMPARED = ("job", "settings", "inputs")
_OTHERS = "other_settings"
_PACKAGES = ("torch", "ray", "numpy", "pyarrow", "timm", "pillow")
_GIT_LIMIT_S = 10


def fingerprint(values: dict[str, Any]) -> str:
    """Hash nested plain values to 16 hexadecimal digits, independent of the order of names."""
    return hashlib.sha256(_canonical(values).encode()).hexdigest()[:16]


def _canonical(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def write_json(location: str, values: dict[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        StorageError: The file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    filesystem.write_bytes(location, text.encode())


def read_json(location: str) -> dict[str, Any] | None:
    """Read a JSON file; None if it does not exist.

    Raises:
        OutputError: The file is damaged.
        StorageError: The file cannot be read.
    """
    try:
        values = json.loads(filesystem.read_bytes(location))
    except MissingError:
        return None
    except ValueError as error:
        raise OutputError(f"'{location}' is damaged: {error}") from error
    if not isinstance(values, dict):
        raise OutputError(f"'{location}' is damaged: it holds no JSON object")
    return values


def read_record(folder: str, name: str = RECORD_NAME) -> dict[str, Any] | None:
    """Read a record of an output folder, from :data:`WORK_FOLDER` if it is there, else from the folder itself.

    Raises:
        OutputError, StorageError: as :func:`read_json`.
    """
    hidden = read_json(filesystem.join(folder, WORK_FOLDER, name))
    return read_json(filesystem.join(folder, name)) if hidden is None else hidden


def amend_record(folder: str, values: dict[str, Any], *, hidden: bool) -> None:
    """Add to the record of a claimed folder what was found out after the claim; arguments as :func:`claim_output`.

    Raises:
        OutputError, StorageError: The record cannot be read or written.
    """
    location = filesystem.join(folder, *([WORK_FOLDER] if hidden else []), RECORD_NAME)
    record = read_json(location) or {}
    if any(record.get(name) != value for name, value in values.items()):
        write_json(location, {**record, **values})


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and its main dependencies; empty if not installed."""
    found = {"python": platform.python_version(), "tag2mask": engine.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def commit() -> str:
    """Return the git commit of the source, with ``-dirty`` for uncommitted changes; empty without a checkout or git."""
    root = Path(engine.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        # installed as a package, possibly inside another project's checkout
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=_GIT_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def claim_output(folder: str, record: dict[str, Any], *, overwrite: bool, hidden: bool = False) -> None:
    """Make a folder this run's output, or find that it already is.

    Args:
        folder: local path or URI; missing, empty, or with the output of an earlier run.
        record: goes to ``run.json``; ``job``, ``settings`` (nested) and ``inputs`` (hashes) must be those of an earlier
            run for it to be continued, so leave out what does not change a result; ``other_settings`` are brought up to
            date then. ``writes`` lists the names directly
            in the folder, beside the shards and records, that the run writes.
        overwrite: delete what an earlier run wrote here, and nothing else, and start afresh.
        hidden: write ``run.json`` to :data:`WORK_FOLDER`, where readers that take a folder of shards whole do not look.

    Raises:
        OtherRunError: the folder belongs to a run with other settings or inputs, or holds foreign files or a damaged
            record.
        OutputError: it cannot be written, or another run has just begun there.
        StorageError: it cannot be read.
    """
    location = filesystem.join(folder, *([WORK_FOLDER] if hidden else []), RECORD_NAME)
    with about("out"):
        entries = filesystem.list_entries(folder)
        if overwrite:
            _delete_own(folder, entries)
        else:
            earlier = _earlier(folder) if entries else None
            if earlier is None:
                _check_empty(folder, entries)
                if entries:  # hidden: somebody deleted the rest, and it speaks of other images
                    _delete_own(folder, entries)
            elif not (changes := _changes(earlier, record)):
                if _canonical(earlier.get(_OTHERS)) != _canonical(record.get(_OTHERS)):
                    write_json(location, {**earlier, _OTHERS: record[_OTHERS]})
                return
            elif _has_results(folder, entries):
                raise _other_run(folder, changes)
            else:  # a run that ended on a mistake before it made anything; it has no claim
                _check_ended(folder, earlier)
                _delete_own(folder, entries)
    check_writable(folder)
    write_json(location, {**record, "process": {"host": platform.node(), "id": os.getpid()}})


def _earlier(folder: str) -> dict[str, Any] | None:
    try:
        return read_record(folder)
    except OutputError as error:  # damaged
        raise OtherRunError(error.reason, thing="out") from error


def _check_ended(folder: str, earlier: dict[str, Any]) -> None:
    """Check that the earlier run has ended; only processes on this machine can be checked."""
    process = earlier.get("process") or {}
    number = process.get("id")
    if process.get("host") != platform.node() or number == os.getpid() or not isinstance(number, int):
        return
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return
    except PermissionError:
        pass  # of another user, so it lives
    raise OutputError(
        f"'{folder}' is in use by another run with other settings (process {number}); end it first", thing="out"
    )


def _changes(earlier: dict[str, Any], record: dict[str, Any]) -> list[str]:
    # via JSON, which converts tuples to lists
    new = json.loads(_canonical({name: record.get(name) for name in _COMPARED}))
    return differences({name: earlier.get(name) for name in _COMPARED}, new)


def _has_results(folder: str, entries: dict[str, bool]) -> bool:
    """Whether a run wrote more than its record and its frozen manifest."""
    if shards.committed_shards(folder) or "weights.safetensors" in entries or _written(folder, entries):
        return True
    work = filesystem.join(folder, WORK_FOLDER)
    return any(is_folder for is_folder in filesystem.list_entries(work).values()) if WORK_FOLDER in entries else False


def _written(folder: str, entries: dict[str, bool]) -> list[str]:
    """List the existing files and folders that an earlier run declared as its own."""
    try:
        earlier = read_record(folder)
    except OutputError:  # damaged, so the run's files are unknown
        earlier = None
    return [name for name in (earlier or {}).get("writes", ()) if name in entries]


def _other_run(folder: str, lines: list[str]) -> OtherRunError:
    return OtherRunError(f"'{folder}' contains the output of another run ({shortened(lines)})", thing="out")


def _check_empty(folder: str, entries: dict[str, bool]) -> None:
    foreign = sorted(name for name in entries if name != WORK_FOLDER and not _is_temporary(name))
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise OtherRunError(f"'{folder}' contains files but no {RECORD_NAME} of an earlier run ({shown})", thing="out")


def _is_temporary(name: str) -> bool:
    """Whether this is a partial file left by a killed run."""
    return name.startswith(".") and name.endswith(".tmp")


def _delete_own(folder: str, entries: dict[str, bool]) -> None:
    for shard in sorted(shards.committed_shards(folder)):
        filesystem.delete_file(shards.shard_path(folder, shard))
    for name in _written(folder, entries):
        delete = filesystem.delete_folder if entries[name] else filesystem.delete_file
        delete(filesystem.join(folder, name))
    for name, is_folder in entries.items():
        if not is_folder and (name in _OWN_FILES or _is_temporary(name)):
            filesystem.delete_file(filesystem.join(folder, name))
    # last, so that an interrupted deletion leaves the record that the remaining files belong to
    if entries.get(WORK_FOLDER):
        filesystem.delete_folder(filesystem.join(folder, WORK_FOLDER))
    if RECORD_NAME in entries:
        filesystem.delete_file(filesystem.join(folder, RECORD_NAME))
