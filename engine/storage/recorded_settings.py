"""The settings that a folder was made with, from which the jobs that are given the folder start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from engine.config import PresetName, Settings
from engine.errors import about
from engine.plain_settings import merged, part_at, with_part
from engine.presets import preset
from engine.storage.filesystem import ending, parent
from engine.storage.run_record import SYNONYMS, VALUE_RANGE, read_record


def recorded_settings(sources: Mapping[str, tuple[str, Sequence[str]]]) -> Settings | None:
    """The settings that some folders were made with; None if none of them has a record.

    Args:
        sources: name of the parameter to the output folder of a job (or a file in it), and the dotted paths of the
            settings that it decides; with no paths it decides all. Later sources override earlier ones.

    Raises:
        ConfigError: a record holds a setting that does not exist, or a value that is not allowed.
        OutputError: a record is damaged.
        StorageError: a record cannot be read.
    """
    settings = None
    for name, (location, paths) in sources.items():
        with about(name):
            found = _settings_of(location)
        if found is not None:
            settings = settings or (preset("small") if paths else found)
            for path in paths:
                settings = with_part(settings, path, part_at(found, path))
    return settings


def recorded_synonyms(location: str) -> dict[str, str]:
    """The other names of the classes, each with its class, that a network was trained with.

    Raises:
        OutputError: a record is damaged.
        StorageError: a record cannot be read.
    """
    found = (read_record(_folder_of(location)) or {}).get(SYNONYMS, {})
    return {str(name): str(known) for name, known in found.items()} if isinstance(found, dict) else {}


def _folder_of(location: str) -> str:
    return parent(location) if ending(location) == ".safetensors" else location


def _settings_of(location: str) -> Settings | None:
    """The whole tree: a record has the settings that decide the output, and the others apart from these."""
    folder = _folder_of(location)
    record = read_record(folder)
    if record is None or "settings" not in record:
        return None
    name = record.get("options", {}).get("preset", "")
    settings = preset(name if name in get_args(PresetName) else "small")
    where = f"the record of '{folder}'"
    for part in ("settings", "other_settings"):  # version 0.1 has no others: the preset's
        settings = merged(settings, record.get(part, {}), where=where)
    if VALUE_RANGE in record:
        settings = merged(settings, {VALUE_RANGE: record[VALUE_RANGE]}, where=where)
    return settings
