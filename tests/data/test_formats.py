import csv
import io
import unicodedata
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.data.formats import FORMATS, find_format
from weakseg.data.formats.tags_csv import read_tags_csv
from weakseg.data.formats.voc import VOC_CLASSES
from weakseg.errors import WeaksegError

Rows = list[tuple[str, tuple[str, ...]]]


def parse(folder: Path, content: str | bytes) -> tuple[Rows, tuple[str, ...]]:
    path = folder / "tags.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_tags_csv(path)
    return [(row.image, row.tags) for row in table.rows], table.faults


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image,tags\n007,cat dog\n", [("007", ("cat", "dog"))]),
        ("image,tags\n007,cat dog", [("007", ("cat", "dog"))]),
        ("image,tags\r\n007,cat\r\n008,dog\r\n", [("007", ("cat",)), ("008", ("dog",))]),
        ("image,tags\r007,cat\r", [("007", ("cat",))]),
        ("\ufeffimage,tags\n007,cat\n", [("007", ("cat",))]),
        ("image,tags\n007,dining table;cat\n", [("007", ("dining table", "cat"))]),
        ("image,tags\n007,cat; dog ;;\n008,a b\n", [("007", ("cat", "dog")), ("008", ("a b",))]),
        ('image,tags\n"007","cat dog"\n', [("007", ("cat", "dog"))]),
        ('image,tags\n"a, b.jpg","cat"\n', [("a, b.jpg", ("cat",))]),
        ("image,tags\n007,\n", [("007", ())]),
        ("image,tags\n007,  \n", [("007", ())]),
        ("image,tags\n007,;\n", [("007", ())]),
        ("image,tags\n\n007,cat\n,\n", [("007", ("cat",))]),
        ("image,tags\n007,cat\tdog\u00a0cow\n", [("007", ("cat", "dog", "cow"))]),
        ("Tags , IMAGE,who\ncat,007,ann\n", [("007", ("cat",))]),
        ("image,tags\ncafe\u0301,fee\u0301\n", [("caf\u00e9", ("fe\u00e9",))]),
        ("image,tags\n", []),
    ],
)
def test_table(tmp_path: Path, content: str, expected: Rows) -> None:
    assert parse(tmp_path, content) == (expected, ())


NAMES = (
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
    .map(partial(unicodedata.normalize, "NFC"))
    .filter(lambda name: not {"/", "\\"} & set(name) and name not in {".", ".."})
)
TAGS = st.text(st.characters(categories=("L", "N"), include_characters="-."), min_size=2).map(
    partial(unicodedata.normalize, "NFC")
)
TAGS = TAGS.filter(lambda tag: tag.casefold() not in {"na", "nan", "none", "null"})
PHRASES = st.lists(TAGS, min_size=1, max_size=3).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    separator=st.sampled_from([";", " "]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    separator: str,
    end: str,
    quoting: Literal[0, 1],
) -> None:
    tags = st.lists(PHRASES if separator == ";" else TAGS, max_size=4).map(tuple)
    rows = data.draw(st.lists(st.tuples(NAMES, tags), max_size=6))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["image", "tags"])
    for image, its_tags in rows:
        closing = ";" if separator == ";" else ""
        writer.writerow([image, separator.join(its_tags) + closing])

    read, faults = parse(tmp_path_factory.getbasetemp(), text.getvalue())

    assert (read, faults) == (rows, ())


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("007,cat,dog", "line 2 has 3 cells, where the header has 2; separate tags by ;"),
        ("007", "line 2 has 1 cells"),
        (",cat", "line 2 names no image"),
        ("images/,cat", "line 2 names no image"),
        ("../..,cat", "line 2 names '..', which is a path; write the bare name"),
        ("00\x007,cat", "control characters"),
        ("007,\x1b[31mcat", "line 2 has control characters in '\\x1b"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, row: str, fault: str) -> None:
    rows, faults = parse(tmp_path, f"image,tags\n{row}\n008,cat\n")
    assert rows == [("008", ("cat",))]
    assert len(faults) == 1
    assert fault in faults[0]
    assert "\x1b" not in faults[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is empty\. Write a line image,tags"),
        ("\n \n", r"is empty\."),
        ("007,cat\n", "starts with '007,cat'"),
        ("image:tags\n007:cat\n", "starts with 'image:tags'"),
        ("x" * 100_000, r"starts with 'x{80}\.\.\.', where"),
        ("image\n007\n", "has the columns 'image': which has the tags?"),
        ("image,ann,bob\n007,cat,dog\n", "has the columns 'image', 'ann', 'bob': which has the"),
        ("image,label,class\n007,cat,dog\n", "'image', 'label', 'class': which has the tags"),
        ("image,label\n007,1\n008,0\n", "has nothing but 0, 1 in 'label'. Name such a column"),
        (b"PK\x03\x04\x14\0\x06\0", "is a workbook and no text. Open it and save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a workbook"),
        ('image,tags\n007,"cat\n', "line 2 is no CSV"),
        ("image,tags\n007,é\n".encode("cp1252"), r"is not UTF-8 \(line 2\). Save it as UTF-8"),
        ("image,tags\n007,cat\n".encode("utf-16")[:-1], "is not UTF-8"),
        (b"image,tags\n007," + b"x" * 200_000, "no CSV: field larger than"),
    ],
)
def test_no_table(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(WeaksegError, match=message) as caught:
        parse(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_voc_has_its_20_classes_in_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_registry_names_are_the_formats_own() -> None:
    assert all(name == layout.name and layout.summary for name, layout in FORMATS.items())


@pytest.mark.parametrize(("folder", "name"), [("JPEGImages", "voc"), ("images", "tagged-folder")])
def test_recognition(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    assert find_format(tmp_path, "auto").name == name
    assert find_format(tmp_path, name).name == name


def test_folder_above_the_data_set_is_pointed_down(tmp_path: Path) -> None:
    (tmp_path / "VOC2012" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(WeaksegError, match=r"holds no data set. Did you mean .*VOC2012\?"):
        find_format(tmp_path, "auto")


def test_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match=r"Expected one of: voc: .*; tagged-folder: images/"):
        find_format(tmp_path, "auto")


def test_folder_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(WeaksegError, match=r"holds no data set.*JPEGImages/"):
        find_format(tmp_path, "voc")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="There is no folder"):
        find_format(tmp_path / "nowhere", "auto")


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match=r"Unknown format 'vok'.*'voc'"):
        find_format(tmp_path, "vok")
