"""Tables as spreadsheets of all countries write them."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weakseg.data.formats.tags_csv import find_tags_csv, no_tags_csv, read_tags_csv
from weakseg.errors import WeaksegError

TAGS = {"001": ("cat", "dining table"), "002": (), "003": ("dog", "cat")}
CLASSES = ("cat", "dining table", "dog")


def table(rows: list[list[str]], delimiter: str = ",", **settings: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, **settings).writerows(rows)
    return text.getvalue()


def lists(image: str = "image", tags: str = "tags", between: str = ";") -> list[list[str]]:
    return [[image, tags], *([name, between.join(of_it)] for name, of_it in TAGS.items())]


def marks(yes: str, no: str) -> list[list[str]]:
    rows = ([n, *(yes if c in of_it else no for c in CLASSES)] for n, of_it in TAGS.items())
    return [["image", *CLASSES], *rows]


def with_columns(rows: list[list[str]]) -> list[list[str]]:
    """A spreadsheet with more columns before and after, and with empty columns and rows."""
    wide = [[str(i), *row, "2024-05-01", "ann", "", ""] for i, row in enumerate(rows[1:], 17)]
    return [["", *rows[0], "Date", "Author", "", ""], *wide, [""] * len(wide[0])]


def read(folder: Path, content: str | bytes) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    path = folder / "tags.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    read_table = read_tags_csv(path, list(TAGS))
    assert read_table.faults == ()
    assert read_table.doubts == {}
    return {row.image: row.tags for row in read_table.rows}, read_table.notes


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (table(lists()), ""),
        (table(lists(), quoting=csv.QUOTE_ALL), ""),
        (table(lists(between=", "), ";").encode("utf-8-sig"), "semicolons; tags separated by comm"),
        (table(lists(), ";"), "columns separated by semicolons"),
        (table(lists(), "\t").encode("utf-16"), "columns separated by tabs"),
        (b"\xfe\xff" + table(lists(), "\t").encode("utf-16-be"), "columns separated by tabs"),
        (table(lists(), "\t", quoting=csv.QUOTE_ALL), "columns separated by tabs"),
        ("sep=;\r\n" + table(lists(between=","), ";"), "columns separated by semicolons"),
        ("sep=|\n" + table(lists(), "|"), "columns separated by |"),
        (table(lists("Photo")), "photos in 'Photo'"),
        (table(lists("FILE_NAME", "Labels")), "photos in 'FILE_NAME'; tags in 'Labels'"),
        (table(lists("Datei", "Inhalt"), ";"), "photos in 'Datei'; tags in 'Inhalt'"),
        ("Bild,Inhalt,Notiz\n001,cat;dining table,\n002,,\n003,dog;cat,\n", "tags in 'Inhalt'"),
        (table(lists()[1:]), "no line with the columns' names"),
        (table(with_columns(lists())), "passed over: 'Date', 'Author'"),
        (
            table(with_columns(lists("Bild")), ";"),
            "photos in 'Bild'; passed over: 'Date', 'Author'",
        ),
        (table(marks("x", "")), "a column for each of 3 tags: 'cat', 'dining table', 'dog'"),
        (table(marks("1", "0")), "a column for each of 3 tags"),
        (table(marks(" 1", " 0")), "a column for each of 3 tags"),
        (table(marks("YES", "No")), "a column for each of 3 tags"),
        (table(marks("WAHR", "FALSCH"), ";"), "a column for each of 3 tags"),
        (table(with_columns(marks("X", ""))), "dog'; passed over: 'Date', 'Author'"),
    ],
)
def test_dialects(tmp_path: Path, content: str | bytes, note: str) -> None:
    tags, notes = read(tmp_path, content)
    assert {image: set(of_it) for image, of_it in tags.items()} == {
        image: set(of_it) for image, of_it in TAGS.items()
    }
    assert len(notes) == bool(note)
    assert all(line.startswith("tags.csv: ") and note in line for line in notes)


def test_a_row_for_each_tag_may_have_spaces(tmp_path: Path) -> None:
    rows = [[f"{image}.jpg", tag] for image, of_it in TAGS.items() for tag in of_it]
    path = tmp_path / "tags.csv"
    path.write_text(table([["filename", "class"], *rows]))
    assert [[row.image, *row.tags] for row in read_tags_csv(path).rows] == rows


def test_several_columns_of_tags(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("image,Tag 1,Tag 2,tag_3\n1,traffic light,car,\n2,,,cat\n")
    read_table = read_tags_csv(path)
    assert [row.tags for row in read_table.rows] == [("traffic light", "car"), ("cat",)]
    assert read_table.notes == ("tags.csv: tags in 'Tag 1', 'Tag 2', 'tag_3'",)


def test_of_two_columns_for_images_that_with_the_photos_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("id,file_name,tags\n7,a.jpg,cat\n8,b.jpg,dog\n")
    assert [row.image for row in read_tags_csv(path, ["a", "b"]).rows] == ["a.jpg", "b.jpg"]
    assert [row.image for row in read_tags_csv(path, ["7", "8"]).rows] == ["7", "8"]
    path.write_text("id,stored as,tags\n7,a.jpg,cat\n8,b.jpg,dog\n")
    assert [row.image for row in read_tags_csv(path, ["a", "b"]).rows] == ["a.jpg", "b.jpg"]
    assert [row.image for row in read_tags_csv(path, ["c"]).rows] == ["7", "8"]


def test_a_first_photo_is_no_name_of_a_column(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("img_1,cat\nimg_2,dog\n")
    rows = read_tags_csv(path, ["img_1", "img_2"]).rows
    assert [(row.image, row.tags) for row in rows] == [("img_1", ("cat",)), ("img_2", ("dog",))]


@pytest.mark.parametrize("cell", ["maybe", "2", "-1"])
def test_a_cell_that_is_no_mark(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(f"image,cat,dog\n1,x,x\n2,{cell},\n3,x,\n")
    (fault,) = read_tags_csv(path).faults
    assert fault.startswith(f"tags.csv line 3 has {cell!r} in the column 'cat'. Write x, 1 or yes")


@pytest.mark.parametrize(
    "content",
    [
        table([["image", "cat", "dog"], ["001", "1", "-1"], ["002", "-1", "-1"]]),
        table([["image", "Ann", "Bob"], ["001", "cat", "dog"]]),
        table([["image", "Objects", "checked"], ["001", "cat", "yes"], ["002", "dog", "no"]]),
        "001,cat,2024-05-01\n002,dog,2024-05-02\n",
        "Photos of the trip\n\nimage,tags\n001,cat\n",
    ],
)
def test_what_may_mean_two_things_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(content)
    with pytest.raises(WeaksegError, match="tags") as caught:
        read_tags_csv(path, list(TAGS))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tags.csv", "Tags.CSV", "tags.tsv", "TAGS.txt"])
def test_names_of_the_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("image,tags\n")
    assert find_tags_csv(tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("labels.csv", "If 'labels.csv' has the tags, give it that name."),
        ("_classes.csv", "If '_classes.csv' has the tags"),
        ("Tags.xlsx", "Save 'Tags.xlsx' under that name, as CSV UTF-8."),
        ("tags.ods", "Save 'tags.ods' under that name"),
        ("notes.txt", "row image,tags for each photo."),
    ],
)
def test_hints_where_there_is_none(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_text("-")
    assert find_tags_csv(tmp_path) is None
    assert str(no_tags_csv(tmp_path)).endswith(hint) or hint in str(no_tags_csv(tmp_path))


def test_a_folder_in_the_tables_place_is_no_hint(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").mkdir()
    assert str(no_tags_csv(tmp_path)).endswith("row image,tags for each photo.")


@settings(max_examples=50, deadline=None)
@given(
    tags=st.dictionaries(
        st.text("ab01", min_size=1, max_size=4), st.sets(st.sampled_from(CLASSES)), min_size=1
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    words=st.sampled_from([("x", ""), ("1", "0"), ("yes", "no"), None]),
)
def test_all_ways_to_write_a_table_say_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    tags: dict[str, set[str]],
    delimiter: str,
    encoding: str,
    end: str,
    quoting: int,
    words: tuple[str, str] | None,
) -> None:
    assume(any(tags.values()) or words != ("x", ""))
    if words:
        yes, no = words
        header = ["Photo", *CLASSES]
        rows = [[n, *(yes if c in of_it else no for c in CLASSES)] for n, of_it in tags.items()]
    else:
        header = ["Photo", "tags"]
        rows = [[n, "".join(f"{tag};" for tag in sorted(of_it))] for n, of_it in tags.items()]
    path = tmp_path_factory.getbasetemp() / "tags.csv"
    text = table([header, *rows], delimiter, lineterminator=end, quoting=quoting)
    path.write_bytes(text.encode(encoding))
    read_table = read_tags_csv(path)
    assert read_table.faults == ()
    assert {row.image: set(row.tags) for row in read_table.rows} == tags


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.text("image,tagsx10;|\t\n\r\"'[]_ /\\é\x00", max_size=60).map(str.encode),
        st.text('imge,;\t\n"10x', max_size=60).map(lambda text: f"image,{text}".encode()),
    )
)
def test_any_file_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        read_table = read_tags_csv(path, ["1", "e", "image"])
        lines = [*read_table.faults, *read_table.notes, *read_table.doubts.values()]
    except WeaksegError as error:
        lines = [str(error)]
    for line in lines:
        assert line.isprintable()
        assert len(line) < 2_000
