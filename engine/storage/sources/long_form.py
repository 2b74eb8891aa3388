"""Sources in long form, as of Open Images: a row for each image and tag, brought to a row for each image."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from engine.storage.sources.rows import SCHEMA


def in_long_form(rows: pa.Table) -> bool:
    """Whether images repeat with other tags; rows that are all alike are a mistake, and no long form.

    Args:
        rows: the first of a source, of the form :data:`engine.storage.sources.rows.SCHEMA`.
    """
    num_images = pc.count_distinct(rows.column("image_id")).as_py()
    if num_images == len(rows) or pc.max(pc.list_value_length(rows.column("tags"))).as_py() > 1:
        return False
    tagged = _one_tag_each(rows)
    num_named, num_tagged = (len(tagged.group_by(["image_id", name]).aggregate([])) for name in ("image", "tag"))
    return bool(num_named == num_images < num_tagged)


def one_row_each(rows: pa.Table) -> pa.Table:
    """A row for each image in the order of its first, with all its tags."""
    groups = _one_tag_each(rows).group_by(["image_id", "image", "uri"], use_threads=False)
    images = groups.aggregate([("tag", "distinct", pc.CountOptions(mode="only_valid"))])
    return images.rename_columns({"tag_distinct": "tags"}).select(SCHEMA.names).cast(SCHEMA)


def _one_tag_each(rows: pa.Table) -> pa.Table:
    """The rows with ``tag``, null where there is none, in place of ``tags``."""
    tags = rows.column("tags").combine_chunks()
    positions = pc.if_else(pc.equal(pc.list_value_length(tags), 0), None, tags.offsets[:-1])
    return rows.select(["image_id", "image", "uri"]).append_column("tag", tags.values.take(positions))
