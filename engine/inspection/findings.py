"""What is odd about a data set, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.inspection.names import odd_names, same_names, similar_names
from engine.inspection.pictures import PictureStatistics
from engine.inspection.tags import TagStatistics

FEW_IMAGES = 50
"""Classes with fewer images are rarely learned: 40 photographs of 6 classes give masks of 16 % mIoU."""
_EVERYWHERE = 0.95
_MOST_NAMED = 12
_SMALL_PX = 64
_LONG = 4.0
_LARGE_PAGE_BYTES = 64 << 20

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd, and what to do about it."""

    kind: str
    severity: Severity
    """``error`` is what no run can work with."""
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.seen}; {self.advice}"


def overview(tags: TagStatistics) -> str:
    """Describe images, classes and tags per image in one line."""
    num_tags = sum(number * count for number, count in tags.histogram.items())
    spread = [f"{count} with {number}" for number, count in tags.histogram.items() if number < 3]
    if more := sum(count for number, count in tags.histogram.items() if number >= 3):
        spread.append(f"{more} with 3 or more")
    classes = "1 class" if len(tags.counts) == 1 else f"{len(tags.counts)} classes"
    return (
        f"{tags.num_images} images, {classes}, {num_tags / tags.num_images:.1f} tags per image "
        f"({', '.join(spread)}): {_counted(list(tags.counts.items()))}"
    )


def describe_pictures(sample: PictureStatistics) -> str:
    """Describe sizes, formats and modes of the sampled images in one line."""
    read = sample.read
    if not read:
        return f"sample of {len(sample.pictures)} images: none can be read"
    sides = sorted(max(one.height, one.width) for one in read)
    size = sum(one.num_bytes for one in read) / len(read)
    return (
        f"sample of {len(sample.pictures)} images: long side {sides[0]} to {sides[-1]} pixels, median "
        f"{sides[len(sides) // 2]}; {size / 1e6:.2g} MB on average; "
        + _counted(Counter(one.kind for one in read).most_common())
    )


def tag_findings(tags: TagStatistics) -> Iterator[Finding]:
    """Judge the tags."""
    counts, total = tags.counts, tags.num_images
    if tags.histogram.keys() == {0}:
        yield Finding("no tags", "error", "no image has a tag", "training the classifier needs them")
        return
    if tags.num_unknown_images:
        yield Finding(
            "unknown tags",
            "warning" if any(counts.values()) else "error",
            f"{tags.num_unknown_images} of {total} images have tags that are no classes: "
            + _counted(list(tags.unknown.items())),
            "they will end in an error; list these tags in the class file (dog: puppy), or set unknown_tags to ignore",
        )
    everywhere = [(name, count) for name, count in counts.items() if total > 1 and count >= _EVERYWHERE * total]
    if everywhere:
        yield Finding(
            "class in every image",
            "warning",
            f"classes in nearly every image: {_counted(everywhere)}",
            "such a class cannot be told from the background; add images without it (no tags, if they show no class)",
        )
    elif len(counts) == 1:
        num_without = total - sum(counts.values())
        yield Finding(
            "one class",
            "note",
            f"there is one class, and {num_without} images without it",
            "these must not show it, and should be taken in the same places",
        )
    if len(counts) > 10 and 2 * len(counts) > total:
        yield Finding(
            "as many classes as images",
            "warning",
            f"{len(counts)} classes in {total} images",
            "check that the tags are names of classes, not captions, ids or file names (tags_column)",
        )
    if few := sorted(((name, count) for name, count in counts.items() if count < FEW_IMAGES), key=lambda one: one[1]):
        yield Finding(
            "few images",
            "warning",
            f"classes with fewer than {FEW_IMAGES} images: {_counted(few)}",
            "they are rarely learned; add images, or merge them with other classes in the class file",
        )
    common = {name for name, _ in everywhere}
    if together := [one for one in tags.together if one[1] not in common]:
        yield Finding(
            "tags together",
            "warning",
            "tags that nearly always come with another: "
            + _joined([f"{one} with {other} ({share:.0%})" for one, other, share in together]),
            "their regions cannot be told apart; merge them, or add images of each alone",
        )
    if tags.num_repeated:
        yield Finding(
            "repeated files",
            "warning",
            f"{tags.num_repeated} rows name a file that another row names too",
            "give each file one row with all its tags",
        )
    yield from _name_findings(list(counts))


def _name_findings(names: Sequence[str]) -> Iterator[Finding]:
    if same := [" = ".join(group) for group in same_names(names)]:
        yield Finding(
            "same names",
            "warning",
            f"names that differ only in case, punctuation or a plural: {_joined(same)}",
            "list one as another name of the other in the class file (dog: Dog, dogs)",
        )
    if similar := [f"{one} / {other}" for one, other in similar_names(names)]:
        yield Finding(
            "similar names",
            "note",
            f"names that differ in one letter: {_joined(similar)}",
            "if one is misspelled, list it as another name in the class file",
        )
    if odd := [repr(name) for name in odd_names(names)]:
        yield Finding(
            "odd names",
            "warning",
            f"names with brackets, commas, pipes or quotes: {_joined(odd)}",
            "if they are lists of names, set tag_separator",
        )


def picture_findings(
    sample: PictureStatistics, *, bands: Sequence[int], value_range: Sequence[float]
) -> Iterator[Finding]:
    """Judge a sample of the images.

    Args:
        bands: The bands that are read; none where the files decide.
        value_range: Black and white of images of more than 8 bits, if stretched.
    """
    num, read = len(sample.pictures), sample.read

    def of_sample(kind: str, severity: Severity, found: Sequence[object], seen: str, advice: str) -> Iterator[Finding]:
        if found:
            yield Finding(kind, severity, f"{len(found)} of {num} sampled images {seen}", advice)

    failed = [one for one in sample.pictures if one.error]
    first = f"'{failed[0].image_id}': {failed[0].error}" if failed else ""
    advice = "they will end in an error" if read else "no run can work unless its workers can read them"
    yield from of_sample("unreadable images", "warning" if read else "error", failed, f"are unusable ({first})", advice)
    yield from of_sample(
        "small images",
        "warning",
        [one for one in read if max(one.height, one.width) < _SMALL_PX],
        f"have no side of {_SMALL_PX} pixels",
        "masks of so few pixels are poor; use larger images",
    )
    yield from of_sample(
        "long images",
        "note",
        [one for one in read if max(one.height, one.width) > _LONG * min(one.height, one.width)],
        f"are more than {_LONG:g} times as long as wide",
        "cut them into tiles, because each is scaled by its long side",
    )
    blank = [one.image_id for one in read if one.is_blank]
    advice = "remove them, or check bands and value_range"
    example = f", such as '{blank[0]}'" if blank else ""
    yield from of_sample("blank images", "warning", blank, f"have a single color{example}", advice)
    extra = [] if bands else [one for one in read if one.kind.startswith("TIFF RGBX")]
    advice = "choose others with bands"
    yield from of_sample("extra bands", "note", extra, "have a fourth band, which is left out", advice)
    gray = [one for one in read if one.kind.split()[1] in ("L", "LA", "1")]
    yield from of_sample(
        "gray and color",
        "note",
        gray if len(gray) < len(read) else [],
        "are gray, others in color",
        "if only images of one class are gray, the classifier learns the lack of color",
    )
    if sample.identical:
        yield Finding(
            "identical images",
            "warning",
            f"{len(sample.identical)} of {sample.num_compared} files are copies of another, such as "
            f"'{sample.identical[0][0]}' of '{sample.identical[0][1]}'",
            "keep one of each, with all its tags",
        )
    if value_range:
        low, high = value_range
        yield Finding(
            "value range",
            "note",
            f"images of more than 8 bits are black at {low:g} and white at {high:g}",
            "value_range sets others",
        )
    if sample.largest_page > _LARGE_PAGE_BYTES:
        yield Finding(
            "large pages",
            "warning",
            f"an image in the Parquet files is read with its neighbors, {sample.largest_page / 1e6:.0f} MB",
            "rewrite the files with row_group_size=100, or training waits for the disk",
        )


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    return _joined([f"{name} {count}" for name, count in counts])


def _joined(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more
