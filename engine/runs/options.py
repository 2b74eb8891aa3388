"""The options that several jobs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from engine.config import PresetName, ResourceConfig
from engine.errors import ConfigError

OptionalText = Annotated[str, tyro.conf.arg(help_behavior_hint="(optional)")]
"""A text that may be left out: --help says so, rather than that it is '' by default."""


def check_fraction(name: str, value: float) -> None:
    """Refuse an option that is no fraction of 1.

    Raises:
        ConfigError: it is below 0 or above 1.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"--{name.replace('_', '-')} is {value}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Options of every job."""

    out: str
    """Folder or URI (s3://...) for what the job writes."""
    preset: PresetName = "small"
    """Settings to start from: tiny (the demo), small (two cores), default (GPUs), paper (the authors')."""
    config: OptionalText = ""
    """A run.json, best.json or calibration.json, whose settings replace the preset's."""
    overwrite: bool = False
    """Delete what an earlier run left under --out, and start afresh; jobs.run does so for the steps that changed."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    """Where and how wide it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions(JobOptions):
    """Options of every job that reads images."""

    data: str
    """A manifest (.csv, .jsonl, .parquet: image, tags), or .tar or .parquet files that hold the images themselves."""
    classes: OptionalText = ""
    """A file with a class name a line; without it classes.txt beside the manifest, else the tags that occur."""
    max_pixels: int = 100_000_000
    """Images with more pixels become error rows; --retry-errors with a larger number tries those again."""
    allow_outside: bool = False
    """Also read local images that are not below the manifest's folder; without it they become error rows."""

    def __post_init__(self) -> None:
        if isinstance(self.max_pixels, int) and self.max_pixels < 1:
            raise ConfigError(f"--max-pixels is {self.max_pixels}; allowed: 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions(DataOptions):
    """Options of every job that writes a row for each image."""

    max_error_fraction: float = 0.05
    """The job ends with status 1 when more of the images than this fraction ended in an error."""
    retry_errors: bool = False
    """Try the images again whose rows carry an error."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        check_fraction("max_error_fraction", self.max_error_fraction)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions(DataOptions):
    """Options of every job that trains a network."""

    val_fraction: float = 0.0
    """Fraction of the images, by a hash of the ids, to score on and not to learn from; 0: training.val-fraction."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"--val-fraction is {self.val_fraction}; allowed: 0 (off) or more, below 1")
