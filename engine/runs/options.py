"""The options that several jobs share; each job adds its own, and says which settings it uses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from engine.checks import require_at_least, require_fractions
from engine.config import PresetName, Settings
from engine.storage.sources.columns import TableForm

DECODING = ("bands", "value_range")
"""Settings of every job: how the images become RGB."""

PresetChoice = Literal["auto", PresetName]


class Uses:
    """Annotates a job's ``settings`` with the dotted paths of those that it reads; the command line offers these."""

    def __init__(self, *paths: str) -> None:
        self.result_paths = tuple(dict.fromkeys((*paths, *DECODING)))
        """Those that decide what comes out."""
        self.paths = (*self.result_paths, "resources")

    @classmethod
    def everything(cls) -> Uses:
        """The whole tree."""
        return cls(*(item.name for item in fields(Settings) if item.name != "resources"))


class StartsFrom:
    """Annotates an option that names an earlier job's output: the job starts from the settings that are recorded there.

    ``Annotated[str, StartsFrom()]`` takes all of them; with dotted paths, only those.
    """

    def __init__(self, *paths: str) -> None:
        self.paths = paths


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Options of every job."""

    out: str
    """Output folder or URI (s3://...)."""
    preset: PresetChoice = "auto"
    """Settings to start from: tiny (the demo), small (two cores), default (GPUs), paper (the authors'); auto takes
    those of the networks or shards that the job is given, else small."""
    config: str = ""
    """An earlier output folder, or its run.json, best.json or calibration.json: its settings override these."""
    overwrite: bool = False
    """Delete an earlier run's output and start afresh; jobs.run does so for the steps that changed."""
    settings: Settings
    """All settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions(JobOptions):
    """Options of every job that reads images."""

    data: str
    """A manifest (.csv, .jsonl, .parquet: image, tags), or .tar or .parquet files that hold the images themselves."""
    classes: str = ""
    """A file with a class name per line; by default classes.txt beside the manifest, else the tags that occur."""
    image_column: str = ""
    """The manifest's column of the images; by default image, or the one with a usual name (file_name, path, ...)."""
    tags_column: tuple[str, ...] = ()
    """The manifest's column of the tags, or its columns of 0 and 1 for each class; by default tags, the column with a
    usual name (label, labels, ...), or all columns that hold only 0 and 1."""
    tag_separator: str = ""
    """What separates the tags in a cell of text; by default ';', or '|' or ',' where it plainly does."""
    max_pixels: int = 100_000_000
    """Images with more pixels become error rows; retry_errors with a larger number tries those again."""
    allow_outside: bool = False
    """Also read local images outside the manifest's folder; by default they become error rows."""

    def __post_init__(self) -> None:
        require_at_least(1, max_pixels=self.max_pixels)

    @property
    def form(self) -> TableForm:
        """What is said of the form of ``data``."""
        return TableForm(image_column=self.image_column, tags_column=self.tags_column, tag_separator=self.tag_separator)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions(DataOptions):
    """Options of every job that writes a row for each image."""

    max_error_fraction: float = 0.05
    """The job fails with status 1 if more than this fraction of the images ended in an error."""
    retry_errors: bool = False
    """Try images with an error row again."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        require_fractions(max_error_fraction=self.max_error_fraction)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSource:
    """What a report is about."""

    data: str
    """The manifest that the masks were made from."""
    masks: str
    """Folder of mask shards."""
    truth: str = ""
    """True masks: a folder of PNGs named by image stem, or a folder of mask shards."""
    run_folder: str = ""
    """Output folder of jobs.run, for the training curves, the mIoU of each stage, and both networks."""
    cam: str = ""
    """Output folder of jobs.train_cam, to also show the activation maps."""
    affinity: str = ""
    """Output folder of jobs.train_affinity, to also show the maps after the walk."""
    num_images: int = 48
    """Images to show: the most and the least confident, some of each class, some at random."""
    max_pixels: int = 100_000_000
    """Images with more pixels are not shown."""
    allow_outside: bool = False
    """Also show local images outside the manifest's folder."""

    def __post_init__(self) -> None:
        require_at_least(1, num_images=self.num_images)
