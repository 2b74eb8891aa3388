"""The images of a job, read once: consecutive jobs share their hash, class names and frozen manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property

from engine.errors import OtherRunError
from engine.progress import doing, job
from engine.resources import Decoding
from engine.runs.options import DataOptions
from engine.storage.class_names import alike, read_class_names, read_vocabulary
from engine.storage.filesystem import exists, is_uri
from engine.storage.manifest import Manifest, freeze_manifest, has_manifest, open_manifest, share_manifest
from engine.storage.pictures import file_of
from engine.storage.sources.find import find_source
from engine.storage.user_manifest import iter_tables, manifest_hash
from engine.storage.value_range import Sample, measured_range
from engine.storage.vocabulary import Vocabulary


class ImageSet:
    """The images and classes named by ``data`` and ``classes``; each property is read on first access."""

    def __init__(self, options: DataOptions) -> None:
        self.data = options.data
        self._classes = options.classes
        self._allow_outside = options.allow_outside
        self._form = options.form
        self._ignore_unknown = options.unknown_tags == "ignore"
        self._given_synonyms: dict[str, str] = {}
        self._given = Decoding(
            max_pixels=options.max_pixels, bands=options.settings.bands, value_range=options.settings.value_range
        )
        self._frozen: Manifest | None = None
        self.is_inspected = False
        """Whether an earlier job said what is odd about the tags."""

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the manifest's rows."""
        with doing("reading manifest"):
            return manifest_hash(self.data, self._form)

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The classes and their other names, if a file lists them; None if they follow from the tags."""
        return read_vocabulary(self.data, self._classes)

    @property
    def synonyms(self) -> dict[str, str]:
        """Other names of the classes: from the class file, else those that a network was trained with."""
        return self._given_synonyms if self.vocabulary is None else self.vocabulary.synonyms

    def take_synonyms(self, synonyms: dict[str, str]) -> None:
        """Take the other names that a network was trained with, unless a file lists the classes."""
        self._given_synonyms = synonyms

    @cached_property
    def decoding(self) -> Decoding:
        """How the images become RGB, for who freezes no manifest of them."""
        if self._given.value_range:
            return self._given
        sample = Sample()
        for table in iter_tables(self.data, self._form, needs_tags=False):
            sample.add(table)
        uris = sample.uris(find_source(self.data).folder, allow_outside=self._allow_outside)
        return replace(self._given, value_range=measured_range(uris, self._given))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 1..C."""
        with doing("reading manifest"):
            if self.vocabulary is not None:
                return self.vocabulary.class_names
            return read_class_names(self.data, self._classes, self._form)

    def frozen_in(
        self, folder: str, *, rows_per_shard: int, class_names: tuple[str, ...], needs_tags: bool
    ) -> Manifest:
        """Open the frozen manifest of a job's folder, or create it.

        Args:
            folder: Folder of the frozen manifest.
            rows_per_shard: Images per shard.
            class_names: The classes 1..C of the job.
            needs_tags: Whether a manifest without tags is an error.

        Raises:
            UserError: The manifest cannot be used, or the existing one was made from other images.
        """
        if has_manifest(folder):
            manifest = open_manifest(folder)
            if not self._has_moved(manifest):
                self.remember(manifest)
                return manifest
        if self._frozen is not None and (self._frozen.needs_tags or not needs_tags):
            return share_manifest(
                self._frozen, folder, rows_per_shard=rows_per_shard, class_names=class_names, needs_tags=needs_tags
            )
        notes: dict[str, None] = {}
        with doing("reading manifest"):
            manifest = freeze_manifest(
                self.data,
                folder,
                class_names=class_names,
                synonyms=self.synonyms,
                ignore_unknown=self._ignore_unknown,
                rows_per_shard=rows_per_shard,
                allow_outside=self._allow_outside,
                needs_tags=needs_tags,
                data_hash=self.hash,
                form=self._form,
                decoding=self._given,
                notes=notes,
            )
        say = job("data").say
        if manifest.value_range != self._given.value_range:
            low, high = manifest.value_range
            notes[f"images of more than 8 bits are black at {low:g} and white at {high:g} (value_range)"] = None
        notes.update({f"classes '{one}' and '{other}' differ in case alone": None for one, other in alike(class_names)})
        for line in notes:
            say(line)
        self.remember(manifest)
        return manifest

    def remember(self, manifest: Manifest) -> None:
        """Share the rows of a manifest with the jobs that follow, if it was frozen from these images."""
        if self._frozen is None and manifest.data_hash == self.hash and manifest.allow_outside == self._allow_outside:
            self._frozen = manifest

    def _has_moved(self, manifest: Manifest) -> bool:
        """Whether the images have moved to another folder since the manifest was frozen.

        Raises:
            OtherRunError: The old folder still exists, so these may be different images with the same names.
        """
        before, now = manifest.source_folder, find_source(self.data).folder
        below = f"{before.rstrip('/')}/"
        if before in ("", now) or not any(file_of(uri).startswith(below) for uri in manifest.read_shard(0)["uri"]):
            return False
        try:
            if not exists(before):
                return True
        except OSError:  # e.g. a bucket that these credentials cannot access
            return True
        if not (is_uri(before) or is_uri(now)) and os.path.samefile(before, now):
            return False
        raise OtherRunError(
            f"was made from images in '{before}', but data refers to images with the same names in '{now}'", thing="out"
        )
