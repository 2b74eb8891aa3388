"""Class files with other names for classes, and tags that are translated by them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import ManifestError
from engine.storage.class_names import read_vocabulary
from engine.storage.manifest import freeze_manifest, open_manifest
from engine.storage.vocabulary import TagTranslation, Vocabulary, class_line, text_entries

EXPECTED = Vocabulary(
    class_names=("dog", "cat", "yes"), synonyms={"puppy": "dog", "hot dog": "dog", "caf\u00e9": "dog", "Cat": "cat"}
)


def _read(folder: Path, text: str, name: str = "classes.txt") -> Vocabulary | None:
    (folder / "m.csv").write_text("image,tags\n")
    (folder / name).write_text(text, encoding="utf-8")
    return read_vocabulary(str(folder / "m.csv"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "\ufeffdog: puppy, hot\u00a0dog,cafe\u0301,\r\ncat: Cat\r\n yes:\r\n\r\n"),
        ("classes.yaml", "dog: [puppy, hot dog, cafe\u0301]\ncat: Cat\nyes:\n"),
        ("classes.yaml", "- dog: puppy, hot dog, cafe\u0301\n- cat:\n  - Cat\n- yes\n"),
        ("classes.yaml", '{"dog": ["puppy", "hot dog", "caf\u00e9"], "cat": ["Cat"], "yes": []}'),
    ],
)
def test_classes_and_their_other_names_are_read_from_text_and_yaml(tmp_path: Path, name: str, text: str) -> None:
    assert _read(tmp_path, text, name) == EXPECTED


def test_numbers_and_words_of_yaml_stay_names(tmp_path: Path) -> None:
    found = _read(tmp_path, "- no\n- 007\n- null\n- 1.0: on\n", "classes.yaml")
    assert found == Vocabulary(class_names=("no", "007", "null", "1.0"), synonyms={"on": "1.0"})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("classes.txt", "dog: puppy\ncat: puppy", "gives 'puppy' as another name of both 'dog' and 'cat'"),
        ("classes.txt", "dog: puppy, puppy", "gives 'puppy' as another name of 'dog' twice"),
        ("classes.txt", "dog: puppy\npuppy", "gives 'puppy' as another name of 'dog', but it is a class by itself"),
        ("classes.txt", "dog: puppy\npuppy: dog", "gives 'puppy' as another name of 'dog', but it is a class"),
        ("classes.txt", "dog: dog", "gives 'dog' as another name of 'dog', but it is a class by itself"),
        ("classes.txt", "dog: background", "gives 'background' as another name of 'dog', but it is a class"),
        ("classes.txt", "dog\n: puppy", "line 2 is blank"),
        ("classes.txt", "dog: pup\x07py", "holds a line break or another control character"),
        ("classes.yaml", "dog: [puppy", "is not YAML: .*, line 1"),
        ("classes.yaml", "dog: puppy\ndog: hound", "is not YAML: 'dog' occurs 2 times"),
        ("classes.yaml", "- dog\n- dog", "'dog' is on lines 1 and 2"),
        ("classes.yaml", "animal:\n  dog: [puppy]", "must give the other names of 'animal' as a list of names"),
        ("classes.yaml", "- [dog]", "where a class is expected"),
        ("classes.yaml", "? [dog, cat]\n: 3", "is not YAML"),
        ("classes.yaml", "dog", "there is no class"),
        ("classes.yaml", "a: &a [x]\nb: *a", "gives 'x' as another name of both 'a' and 'b'"),
        ("classes.yaml", "[" * 5000, "is not YAML"),
        ("classes.yaml", "a: !!python/object/apply:os.system [exit]", "gives 'exit'|^$"),
    ],
)
def test_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    if "python/object" in text:  # the tag is not followed: its argument is a name
        assert _read(tmp_path, text, name) == Vocabulary(class_names=("a",), synonyms={"exit": "a"})
        return
    with pytest.raises(ManifestError, match=sentence) as caught:
        _read(tmp_path, text, name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_two_class_files_are_asked_about(tmp_path: Path) -> None:
    _read(tmp_path, "dog")
    with pytest.raises(ManifestError, match=r"^data has both '.*classes.txt' and '.*classes.yaml' beside it"):
        _read(tmp_path, "dog:", "classes.yaml")


@pytest.mark.parametrize("name", ["dog", "a: b", "a:", "a:b", '"a', '"a"', "a: \u00e9"])
def test_class_that_is_written_is_read_again(name: str) -> None:
    assert text_entries(f"{class_line(name)}\n") == [(name, [])]


def _translation(*, ignore_unknown: bool) -> TagTranslation:
    return TagTranslation(("dog", "cat"), {"puppy": "dog", "hound": "dog"}, ignore_unknown=ignore_unknown)


ROWS = [["puppy", "cat", "hound"], [], ["sky"], ["Dog", "cat"], ["cat", "sky", "dog", "puppy"], ["dog"]]


@pytest.mark.parametrize("size", [1, 2, 6])
def test_other_names_become_their_class_once_in_a_row_and_unknown_ones_are_dropped_and_counted(size: int) -> None:
    translation = _translation(ignore_unknown=True)
    whole = pa.chunked_array([pa.array(ROWS[:4], pa.list_(pa.string())), pa.array(ROWS[4:], pa.list_(pa.string()))])
    parts = [translation.applied(whole.slice(start, size)).to_pylist() for start in range(0, len(ROWS), size)]
    assert list(itertools.chain(*parts)) == [["dog", "cat"], [], [], ["cat"], ["cat", "dog"], ["dog"]]
    assert translation.ignored == {"sky": 2, "Dog": 1}
    assert translation.notes == [
        "tags that count as a class: puppy 2 as dog, hound 1 as dog",
        "warning: tags that are no classes are ignored (unknown_tags): sky 2, Dog 1",
        "warning: tag 'Dog' differs from 'dog' in case alone",
    ]


@pytest.mark.parametrize("ignore_unknown", [False, True])
def test_tags_stay_with_their_image_in_a_long_manifest(ignore_unknown: bool) -> None:
    names = ["dog", "puppy", "hound", "cat", "sky", *(f"unknown {number}" for number in range(20))]
    rng = np.random.default_rng(0)
    rows = [[names[at] for at in rng.integers(0, len(names), rng.integers(0, 6))] for _ in range(5000)]
    classes = {"dog": "dog", "puppy": "dog", "hound": "dog", "cat": "cat"}
    expected = [
        list(dict.fromkeys(classes.get(tag, tag) for tag in row if tag in classes or not ignore_unknown))
        for row in rows
    ]
    found = _translation(ignore_unknown=ignore_unknown).applied(pa.chunked_array([pa.array(rows)]))
    assert found.to_pylist() == expected


def test_unknown_tags_stay_where_they_are_errors_and_another_case_is_said() -> None:
    translation = _translation(ignore_unknown=False)
    found = translation.applied(pa.chunked_array([pa.array(ROWS, pa.list_(pa.string()))])).to_pylist()
    assert found[2:4] == [["sky"], ["Dog", "cat"]]
    assert translation.ignored == {}
    assert translation.notes[1:] == ["warning: tag 'Dog' differs from 'dog' in case alone"]


def test_frozen_rows_hold_classes_and_what_was_ignored(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,tags\na.jpg,puppy;sky\nb.jpg,sky\nc.jpg,\n")
    manifest = freeze_manifest(
        str(tmp_path / "m.csv"),
        str(tmp_path / "out"),
        rows_per_shard=9,
        class_names=("cat", "dog"),
        synonyms={"puppy": "dog"},
        ignore_unknown=True,
    )
    rows = manifest.read_shard(0)
    assert rows["tags"] == [["dog"], [], []]
    assert rows["class_ids"] == [[2], [], []]
    assert rows["error"] == [None] * 3
    assert open_manifest(str(tmp_path / "out")).ignored_tags == {"sky": 2}


def test_long_form_whose_rows_become_one_class_is_still_one_image(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,label\na.jpg,puppy\na.jpg,hound\nb.jpg,dog\nb.jpg,puppy\n")
    manifest = freeze_manifest(
        str(tmp_path / "m.csv"),
        str(tmp_path / "out"),
        rows_per_shard=9,
        class_names=("dog",),
        synonyms={"puppy": "dog", "hound": "dog"},
    )
    assert manifest.read_shard(0)["tags"] == [["dog"], ["dog"]]
