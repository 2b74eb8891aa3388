"""The options that several jobs share."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import PresetName, ResourceConfig
from engine.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Options of every job."""

    out: str
    """Folder or URI for what the job writes."""
    preset: PresetName = "small"
    """Settings to start from: tiny (the demo), small (two cores), default (GPUs), paper (the authors')."""
    config: str = ""
    """A run.json or best.json of an earlier run whose settings replace the preset's."""
    overwrite: bool = False
    """Delete what an earlier run with other settings left under --out, and start afresh."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    """Where and how wide it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions(JobOptions):
    """Options of every job that reads images."""

    data: str
    """The manifest: .csv, .jsonl or .parquet with the columns image and tags."""
    classes: str = ""
    """A file with a class name a line; without it classes.txt beside the manifest, else the tags that occur."""
    max_pixels: int = 100_000_000
    """Images with more pixels become error rows."""
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
        if not 0 <= self.max_error_fraction <= 1:
            raise ConfigError(f"--max-error-fraction is {self.max_error_fraction}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions(DataOptions):
    """Options of every job that trains a network."""

    val_fraction: float = 0.0
    """Fraction of the images, chosen by the hash of their ids, to score the network on and never to learn from; 0
    takes the network's own training.val-fraction, which holds out none by default."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"--val-fraction is {self.val_fraction}; allowed: 0 (off) or more, below 1")
