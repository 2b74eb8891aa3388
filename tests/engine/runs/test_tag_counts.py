"""What is said of a manifest before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

from engine.runs.images import ImageSet
from engine.runs.options import DataOptions
from engine.runs.tag_counts import count_tags, describe_tags
from engine.storage.manifest import Manifest
from tests.jobs.small_runs import small_settings


def _frozen(folder: Path, *tags: str) -> Manifest:
    rows = "".join(f"{number}.jpg,{value}\n" for number, value in enumerate(tags))
    (folder / "manifest.csv").write_text(f"image,tags\n{rows}")
    (folder / "classes.txt").write_text("cat\ndog\n")
    options = DataOptions(data=str(folder / "manifest.csv"), out=str(folder), settings=small_settings())
    images = ImageSet(options)
    return images.frozen_in(str(folder), rows_per_shard=2, class_names=("cat", "dog"), needs_tags=True)


def test_images_are_counted_by_tag(tmp_path: Path) -> None:
    manifest = _frozen(tmp_path, "cat", "dog;cat", "", "dog", "cat")
    assert count_tags(manifest) == {"cat": 3, "dog": 2}
    (tmp_path / "untagged").mkdir()
    assert not count_tags(_frozen(tmp_path / "untagged", "", "", ""))


def test_classes_with_few_images_and_classes_in_every_image_are_warned_of() -> None:
    plain, few, everywhere = describe_tags({"cat": 200, "dog": 7}, 200, ("cat", "dog"))
    assert plain == "200 images, 2 classes: cat 200, dog 7"
    assert few.startswith("warning: ")
    assert few.endswith(": dog 7")
    assert everywhere.endswith(": cat 200")
    assert len(describe_tags({"cat": 150, "dog": 60}, 200, ("cat", "dog"))) == 1


def test_thousands_of_classes_are_not_all_listed() -> None:
    names = tuple(f"class{number}" for number in range(1000))
    (line,) = describe_tags(dict.fromkeys(names, 60), 70, names)
    assert line.endswith("class11 60 and 988 more")
