"""engine/storage/sources/tags.py: cells of tags as pandas, NumPy, databases, label tools and people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.errors import ManifestError
from engine.storage.class_names import alike, read_class_names
from engine.storage.sources.tags import TagReader, plain_name

NUMPY = "['dog' 'traffic light']"


def _lists(cells: Any, separator: str = "", **options: Any) -> list[list[str]]:
    lists: list[list[str]] = TagReader(separator, **options).lists(cells, "'m.csv'").to_pylist()
    return lists


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['dog', 'person']", ["dog", "person"]),  # pandas
        ('["dog", "person"]', ["dog", "person"]),  # json
        ("('dog', 'person')", ["dog", "person"]),
        ("{'dog', 'person'}", ["dog", "person"]),
        (NUMPY, ["dog", "traffic light"]),  # Python would join the two
        ("""["St. Bernard's", 'cat']""", ["St. Bernard's", "cat"]),
        (r'["caf\u00e9"]', ["café"]),
        ("{dog,person}", ["dog", "person"]),  # PostgreSQL
        ('{"traffic light",dog}', ["traffic light", "dog"]),
        ("[dog, person]", ["dog", "person"]),
        ('{"choices": ["dog", "person"]}', ["dog", "person"]),  # Label Studio
        ("[]", []),
        ("['dog', 'dog', '']", ["dog"]),
        ("crab (animal)", ["crab (animal)"]),  # LVIS
        ("(animal)", ["(animal)"]),
    ],
)
def test_list_written_as_text_is_read_as_a_list(cell: str, names: list[str]) -> None:
    assert _lists([cell]) == _lists(pa.array([cell])) == _lists([cell, ["cat"]])[:1] == [names]


@pytest.mark.parametrize("cell", ['{"dog": 1}', '[["dog"]]'])
def test_brackets_that_hold_no_list_are_refused(cell: str) -> None:
    with pytest.raises(ManifestError, match=r"'m\.csv', row 2 has the tag .*, which is not a list of names"):
        _lists(["cat", cell])
    assert _lists(["cat", cell], strict=False) == [["cat"], [cell]]


@pytest.mark.parametrize("separator", [",", "|", ", ", " | "])
def test_other_separator_is_taken_where_it_is_plainly_meant_and_said(separator: str) -> None:
    cells = [f"dog{separator}person", "dog", "", f"cat{separator}person"]
    reader = TagReader()
    assert reader.lists(cells, "'m.csv'").to_pylist() == [["dog", "person"], ["dog"], [], ["cat", "person"]]
    assert list(reader.notes) == [f"tags are separated by '{separator.strip()}'"]
    # what was found out holds for the rows that follow
    assert reader.lists([f"cow{separator}ox"], "'m.csv'", 4).to_pylist() == [["cow", "ox"]]
    with pytest.raises(ManifestError, match=r"'m\.csv', row 6 has tags 'a;b', but rows before it are separated by"):
        reader.lists(["a", "a;b"], "'m.csv'", 4)


def test_comma_that_may_be_a_part_of_a_name_is_asked_for() -> None:
    cells = ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    with pytest.raises(ManifestError, match=r"'m\.csv', row 1 has tags 'tench, Tinca tinca'; .* Set tag_separator"):
        _lists(cells)
    assert _lists(cells, ";") == _lists(cells, known=cells) == [[cell] for cell in cells]
    assert _lists(cells, ",")[0] == ["tench", "Tinca tinca"]
    assert _lists(cells, known=["tench", "goldfish"])[0] == ["tench", "Tinca tinca"]
    assert _lists([*cells, "a;b"]) == [*([cell] for cell in cells), ["a", "b"]]
    assert _lists(cells, strict=False) == [[cell] for cell in cells]


def test_two_separators_in_one_source_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"'m\.csv', row 2 has tags 'dog, person', but other rows are separated by"):
        TagReader().lists(["dog|cat", "dog, person"], "'m.csv'")
    assert TagReader().lists(["dog|cat", "apple, green"], "'m.csv'").to_pylist() == [["dog", "cat"], ["apple, green"]]


def test_names_seen_before_tell_that_a_comma_separates() -> None:
    reader = TagReader()
    reader.lists(["dog"], "'m.csv'")
    assert reader.lists(["dog, cat"], "'m.csv'", 1).to_pylist() == [["dog", "cat"]]


def test_names_in_lists_are_never_split() -> None:
    cells = [["tench, Tinca tinca"], ["a|b", "a;b"]]
    kinds = [pa.list_(pa.string()), pa.large_list(pa.large_string())]
    assert all(_lists(given) == cells for given in (cells, *(pa.array(cells, kind) for kind in kinds)))


@pytest.mark.parametrize("cells", [[[0, 1, 1]], pa.array([[1, 0], [0, 0]]), [[True, False]]])
def test_lists_of_0_and_1_are_refused_with_a_hint(cells: Any) -> None:
    with pytest.raises(ManifestError, match="give names, or a column of 0 and 1 for each class"):
        _lists(cells)


def test_nothing_of_pandas_is_no_tag() -> None:
    assert _lists([None, float("nan"), ["cat", None], 3 * [None]]) == [[], [], ["cat"], []]


@pytest.mark.parametrize("name", ["traffic\nlight", "a\tb", "a\x00b", "a\u2028b", "a\x85b", "a\x1bb"])
def test_name_with_a_control_character_is_refused(name: str) -> None:
    for cells in ([f"dog;{name}"], [["dog", name]], pa.array([[name]])):
        with pytest.raises(
            ManifestError, match=r"'m\.csv', row 1 has the tag .* holds a line break or another control character"
        ):
            _lists(cells)


def test_letters_that_cannot_be_told_apart_are_one_name_and_it_is_said() -> None:
    cafes = ["café", "cafe\u0301", "caf\u200bé", "\ufeffcafé", "cafe\u200b\u0301", "café\u00a0", "ca\u00adfé"]
    reader = TagReader()
    assert reader.lists(cafes, "'m.csv'").to_pylist() == [["café"]] * len(cafes)
    assert list(reader.notes) == ["invisible or composed letters of tags are normalised"]
    assert plain_name("polar\u00a0bear") == "polar bear"
    assert plain_name("dog\u200d") == "dog"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert plain_name(family) == family  # here it joins
    assert plain_name("می\u200cخواهم") == "می\u200cخواهم"


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ManifestError, match="half a character"):
        _lists(["\ud800"])


def test_captions_are_refused_as_classes(tmp_path: Path) -> None:
    captions = 'image,tags\na.jpg,a cat on a mat\nb.jpg,"two dogs, a ball and a tree"\n'
    (tmp_path / "m.csv").write_text(captions)
    with pytest.raises(ManifestError, match=r"^data the tags of .* look like captions \('a cat on a mat'\)"):
        read_class_names(str(tmp_path / "m.csv"))
    (tmp_path / "m.csv").write_text("image,tags\na.jpg,0\nb.jpg,1\n")
    with pytest.raises(ManifestError, match=r"^data the tags of .* are 0 and 1 alone; give names"):
        read_class_names(str(tmp_path / "m.csv"))


def test_classes_of_a_file_are_brought_to_the_same_form_as_tags(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,tags\na.jpg,café\n")
    (tmp_path / "classes.txt").write_text("cafe\u0301\ntraffic light\u200b\n")
    assert read_class_names(str(tmp_path / "m.csv")) == ("café", "traffic light")
    (tmp_path / "classes.txt").write_text("cat\na\tb\n")
    with pytest.raises(ManifestError, match=r"classes\.txt': the class 'a\\tb' holds a line break or another"):
        read_class_names(str(tmp_path / "m.csv"))
    (tmp_path / "classes.txt").write_text("cat\n\u200b\n")
    with pytest.raises(ManifestError, match="line 2 is blank"):
        read_class_names(str(tmp_path / "m.csv"))


def test_names_that_differ_in_case_alone_are_paired() -> None:
    assert alike(["cat", "dog", "Cat", "DOG", "cow"]) == [("cat", "Cat"), ("dog", "DOG")]
