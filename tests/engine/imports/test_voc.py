"""VOC folders as manifests that the jobs read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli.command import main
from tests.engine.export.examples import CLASS_NAMES, export, jpeg
from tests.engine.imports.examples import imported, job, labeled_items, refused, tags_of, write_pictures


def test_voc_folder_that_was_exported_comes_back(tmp_path: Path) -> None:
    export(str(tmp_path), "voc", labeled_items())
    root = tmp_path / "VOCdevkit" / "VOC2012"
    rows, names = imported(root, "voc", root)
    assert names == list(CLASS_NAMES)
    assert tags_of(rows) == {
        "a": ["cat", CLASS_NAMES[1]],
        "b%20%C3%BC": [],
    }
    assert all(Path(uri).is_file() for uri, _ in rows.values())
    assert "JPEGImages/a.jpg" in (root / "manifest.csv").read_text()


def test_voc_annotations_come_before_masks_and_leave_out_what_is_difficult(tmp_path: Path) -> None:
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "JPEGImages").mkdir()
    (tmp_path / "voc" / "JPEGImages" / "1.jpg").write_bytes(jpeg(4, 4))
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
        for name, difficult in (("dog", 0), ("dog", 0), ("cat", 1), ("person", 0))
    )
    (tmp_path / "voc" / "Annotations" / "1.xml").write_text(f"<annotation>{objects}</annotation>")
    rows, names = imported(tmp_path / "voc", "voc", tmp_path / "out")
    assert rows["1"][1] == ["dog", "person"]
    assert len(names) == 20


def test_mask_that_cannot_be_read_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(jpeg(4, 4))
    mask = tmp_path / "SegmentationClass" / "a.png"
    arguments = ["--source", str(tmp_path), "--format", "voc", "--out", str(tmp_path / "out")]
    mask.write_bytes(b"no picture")
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: --source '{mask}' is not a readable mask: ")
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere")
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err == f"error: --source '{mask}' does not exist\n"


def _write(folder: Path, annotations: dict[str, str | bytes], *pictures: str) -> Path:
    """A VOC folder: annotations by their path, and small pictures."""
    write_pictures(folder / "JPEGImages", *(pictures or [f"{Path(path).with_suffix('.jpg')}" for path in annotations]))
    for path, text in annotations.items():
        place = folder / "Annotations" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def _annotation(*objects: str, attributes: str = "") -> str:
    return f"<annotation{attributes}>{''.join(f'<object>{one}</object>' for one in objects)}</annotation>"


@pytest.mark.parametrize("encoding", ["GB2312", "gbk", "big5", "shift_jis", "euc-kr", "windows-1251", "utf-16"])
def test_annotation_is_read_in_the_encoding_that_it_declares(encoding: str, tmp_path: Path) -> None:
    name = {"windows-1251": "кот", "euc-kr": "고양이"}.get(encoding, "花")
    text = f'<?xml version="1.0" encoding="{encoding}"?>{_annotation(f"<name>{name}</name>")}'
    rows, names = imported(_write(tmp_path, {"1.xml": text.encode(encoding)}), "voc", tmp_path)
    assert (names, tags_of(rows)) == ([name], {"1": [name]})


def test_file_declared_as_gb2312_may_hold_letters_of_gbk(tmp_path: Path) -> None:
    text = f"<?xml version='1.0' encoding='gb2312'?>{_annotation('<name>镕</name>')}"
    assert imported(_write(tmp_path, {"1.xml": text.encode("gbk")}), "voc", tmp_path)[1] == ["镕"]


@pytest.mark.parametrize(
    "content",
    [
        f"<?xml version='1.0' encoding='nonsense'?>{_annotation()}".encode(),
        f"<?xml version='1.0' encoding='big5'?>{_annotation('<name>кот</name>')}".encode(),
        _annotation("<name>花</name>").encode("gbk"),
    ],
)
def test_annotation_in_an_unknown_or_wrong_encoding_is_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(_write(tmp_path, {"1.xml": content}), "voc", tmp_path, capsys)
    assert line.startswith(f"error: --source '{tmp_path}/Annotations/1.xml' is not XML: ")


@pytest.mark.parametrize("difficult", ["1", " 1 ", "True", "true\n"])
def test_object_is_difficult_however_it_is_written(difficult: str, tmp_path: Path) -> None:
    text = _annotation("<name>dog</name>", f"<name>cat</name><difficult>{difficult}</difficult>")
    assert tags_of(imported(_write(tmp_path, {"1.xml": text}), "voc", tmp_path)[0]) == {"1": ["dog"]}


def test_deleted_object_of_labelme_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _annotation("<name>dog</name><deleted>0</deleted>", "<name>cat</name><deleted>1</deleted>")
    assert tags_of(imported(_write(tmp_path, {"1.xml": text}), "voc", tmp_path)[0]) == {"1": ["dog"]}
    assert "deleted objects (skipped): 1, such as " in capsys.readouterr().out


def test_namespace_of_an_annotation_hides_no_object(tmp_path: Path) -> None:
    text = _annotation(
        "<name>dog</name>", "<name>cat</name><difficult>1</difficult>", attributes=' xmlns="http://example.org/voc"'
    )
    assert tags_of(imported(_write(tmp_path, {"1.xml": text}), "voc", tmp_path)[0]) == {"1": ["dog"]}


def test_file_of_another_kind_of_xml_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '<annotations><image name="1.jpg"><box label="dog"/></image></annotations>'
    line = refused(_write(tmp_path, {"1.xml": text}), "voc", tmp_path, capsys)
    assert line.endswith("1.xml' is not a VOC annotation: its root is <annotations>, not <annotation>")


def test_annotations_at_any_depth_belong_to_the_picture_at_their_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations: dict[str, str | bytes] = {
        name: _annotation("<name>dog</name>") for name in ("1.xml", "sub/1.XML", "sub/deep/2.xml", "3.xml")
    }
    pictures = ("1.jpg", "sub/1.png", "sub/deep/2.jpg", "other.jpg", "._1.jpg", "__MACOSX/1.jpg")
    source = _write(tmp_path, annotations, *pictures)
    (tmp_path / "JPEGImages" / "1.txt").write_text("0 .5 .5 1 1")  # after 1.jpg, by its name
    (tmp_path / "Annotations" / "README.md").write_text("as exported")
    rows, _ = imported(source, "voc", tmp_path)
    assert {image_id: uri for image_id, (uri, _) in rows.items()} == {
        "1": f"{tmp_path}/JPEGImages/1.jpg",
        "sub/1": f"{tmp_path}/JPEGImages/sub/1.png",
        "sub/deep/2": f"{tmp_path}/JPEGImages/sub/deep/2.jpg",
    }
    said = capsys.readouterr().out
    assert "annotations without an image (skipped): 1, such as '3.xml'" in said
    assert "images without annotations (skipped): 1, such as 'other.jpg'" in said
    assert "files other than .xml (skipped): 1, such as 'README.md'" in said
    assert "files of macOS (skipped): 2, such as '._1.jpg'" in said


def test_two_pictures_of_one_name_are_refused_with_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write(tmp_path, {"a.xml": _annotation("<name>dog</name>")}, "a.jpg", "a.png")
    assert "has two files of the same name, 'a.jpg' and 'a.png'" in refused(source, "voc", tmp_path, capsys)


def test_image_whose_objects_are_all_difficult_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    difficult = _annotation("<name>dog</name><difficult>1</difficult>")
    source = _write(
        tmp_path, {"1.xml": difficult, "2.xml": _annotation(), "3.xml": _annotation("<name>cat</name>", "")}
    )
    rows, _ = imported(source, "voc", tmp_path)
    assert tags_of(rows) == {"2": [], "3": ["cat"]}
    said = capsys.readouterr().out
    assert "images with only difficult objects (skipped): 1, such as '1.jpg'" in said
    assert "images without tags (all background): 1, such as '2'" in said
    assert f"objects without a name (skipped): 1, such as '{tmp_path}/Annotations/3.xml'" in said
    assert "classes that no image is tagged with: 19, such as 'aeroplane'" in said


def test_annotations_beside_their_pictures_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, "1.jpg", "sub/2.png", "3.jpg")
    for name in ("1", "sub/2"):
        (tmp_path / f"{name}.xml").write_text(_annotation("<name>dog</name>"))
    (tmp_path / "README.md").write_text("as exported")
    rows, _ = imported(tmp_path, "voc", tmp_path / "out")
    assert tags_of(rows) == {"1": ["dog"], "sub/2": ["dog"]}
    assert "images without annotations (skipped): 1, such as '3.jpg'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["кот на ковре", "b ü", "a.b.c", "x%20y", "sub dir/ж"])
def test_annotations_and_pictures_of_any_name_match(name: str, tmp_path: Path) -> None:
    source = _write(tmp_path, {f"{name}.xml": _annotation("<name>dog</name>")}, f"{name}.jpg")
    rows, _ = imported(source, "voc", tmp_path)
    assert rows == {name: (f"{tmp_path}/JPEGImages/{name}.jpg", ["dog"])}


def test_annotation_that_is_cut_off_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write(tmp_path, {"1.xml": _annotation(), "2.xml": _annotation("<name>dog</name>")[:30]})
    assert f"'{tmp_path}/Annotations/2.xml' is not XML: " in refused(source, "voc", tmp_path, capsys)
