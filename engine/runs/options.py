"""Options that several jobs share; each job adds its own and declares which settings it uses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from engine.checks import require_at_least, require_fractions
from engine.config import PresetName, Settings
from engine.storage.sources.columns import TableForm

DECODING = ("bands", "value_range")
"""Settings of every job: how the images become RGB."""

UnknownTags = Literal["error", "ignore"]
PresetChoice = Literal["auto", PresetName]


class Uses:
    """Annotates a job's ``settings`` with the dotted paths of those that it reads; the command line offers these."""

    def __init__(self, *paths: str) -> None:
        self.result_paths = tuple(dict.fromkeys((*paths, *DECODING)))
        """Those that decide what comes out."""
        self.paths = (*self.result_paths, "resources")

    @classmethod
    def everything(cls) -> Uses:
        """Use the whole settings tree."""
        return cls(*(item.name for item in fields(Settings) if item.name != "resources"))


class StartsFrom:
    """Annotates an option that names an earlier job's output, whose recorded settings become the defaults.

    ``Annotated[str, StartsFrom()]`` takes all recorded settings; with dotted paths, only those.
    """

    def __init__(self, *paths: str) -> None:
        self.paths = paths


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Options of every job."""

    out: str
    """Output folder or URI (s3://, gs://, az://)."""
    preset: PresetChoice = "auto"
    """Default settings: tiny (the demo), small (two cores), default (GPUs), paper (the authors'); auto takes the
    settings recorded with the networks or shards that the job is given, else small."""
    config: str = ""
    """Output folder of an earlier run, or its run.json, best.json or calibration.json; overrides the preset."""
    overwrite: bool = False
    """Delete an earlier run's output and start over; jobs.run does so only for steps whose settings changed."""
    settings: Settings
    """All settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions(JobOptions):
    """Options of every job that reads images."""

    data: str
    """Manifest (.csv, .jsonl, .parquet: image, tags), or .tar or .parquet files that contain the images."""
    classes: str = ""
    """File of the classes and their other names (dog: puppy, hound), a class per line, or YAML; by default classes.txt
    or classes.yaml in the manifest's folder, else all tags in use."""
    unknown_tags: UnknownTags = "error"
    """Tags that are no classes: an error of their image, or ignored and counted."""
    image_column: str = ""
    """Image column of the manifest; by default image, or a column with a common name (file_name, path, ...)."""
    tags_column: tuple[str, ...] = ()
    """Tag column of the manifest, or one 0/1 column per class; by default tags, a column with a common name (label,
    labels, ...), or all columns that contain only 0 and 1."""
    tag_separator: str = ""
    """Separator of tags in a text cell; by default ';', or '|' or ',' if clearly used as one."""
    max_pixels: int = 100_000_000
    """Images with more pixels become error rows; to retry them, raise this and set retry_errors."""
    allow_outside: bool = False
    """Also read local images outside the manifest's folder; by default they become error rows."""

    def __post_init__(self) -> None:
        require_at_least(1, max_pixels=self.max_pixels)

    @property
    def form(self) -> TableForm:
        """Options on how to read the table ``data``."""
        return TableForm(image_column=self.image_column, tags_column=self.tags_column, tag_separator=self.tag_separator)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions(DataOptions):
    """Options of every job that writes a row for each image."""

    max_error_fraction: float = 0.05
    """Fail with exit status 1 if more than this fraction of the images ended in an error."""
    retry_errors: bool = False
    """Retry the images that ended in an error."""
    price_per_core_hour: float = 0.0
    """Price of a core for an hour, in any currency, to report the cost of a million images; 0 reports none."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        require_fractions(max_error_fraction=self.max_error_fraction)
        require_at_least(0, price_per_core_hour=self.price_per_core_hour)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSource:
    """Options that name what a report shows."""

    data: str
    """The manifest that the masks were made from."""
    masks: str
    """Folder of mask shards."""
    truth: str = ""
    """True masks: a folder of PNGs named by image stem, or a folder of mask shards."""
    run_folder: str = ""
    """Output folder of jobs.run, to also show training curves, the mIoU of each stage and the networks' maps."""
    cam: str = ""
    """Output folder of jobs.train_cam, to also show the class activation maps."""
    affinity: str = ""
    """Output folder of jobs.train_affinity, to also show the maps after the walk."""
    num_images: int = 48
    """Number of images to show: the most and least confident, some of each class, some at random."""
    max_pixels: int = 100_000_000
    """Do not show images with more pixels."""
    allow_outside: bool = False
    """Also show local images outside the manifest's folder."""

    def __post_init__(self) -> None:
        require_at_least(1, num_images=self.num_images)
