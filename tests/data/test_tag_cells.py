from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.formats.tag_cells import Cell, read_cells

Tags = list[tuple[str, ...]]


def cells(texts: list[str]) -> list[Cell]:
    return [Cell(text, f"line {texts.index(text) + 1}", n) for text, n in Counter(texts).items()]


@pytest.mark.parametrize(
    ("texts", "tags", "note"),
    [
        (["blouse, hair, shoes", "hair"], [("blouse", "hair", "shoes"), ("hair",)], "by commas"),
        (["a,b", "dining table"], [("a", "b"), ("dining table",)], "by commas"),
        (["car|cat", "cat"], [("car", "cat"), ("cat",)], "by |"),
        (["car\ncat", "traffic light"], [("car", "cat"), ("traffic light",)], "by line breaks"),
        (["car;\ncat;"], [("car", "cat")], None),
        (["car;cat, small", "dog"], [("car", "cat, small"), ("dog",)], None),
        (["'car', 'cat'", '"dog"'], [("car", "cat"), ("dog",)], "by commas"),
        (["['car', 'cat']", "[]", ""], [("car", "cat"), (), ()], "in brackets"),
        (['["traffic light"]', "[car]"], [("traffic light",), ("car",)], "in brackets"),
        (["['car' 'cat']"], [("car", "cat")], "in brackets"),
        (
            ["('car',)", "{car,cat}", "[a b, c]"],
            [("car",), ("car", "cat"), ("a b", "c")],
            "brackets",
        ),
        (["[\"bird's nest\", 'cat']"], [("bird's nest", "cat")], "in brackets"),
        (["car cat", "cat\u00a0dog"], [("car", "cat"), ("cat", "dog")], "by spaces"),
        (["car", "cat"], [("car",), ("cat",)], None),
    ],
)
def test_lists(texts: list[str], tags: Tags, note: str | None) -> None:
    read = read_cells(cells(texts))
    assert list(read.tags.values()) == tags
    assert (read.faults, read.doubts) == ((), {})
    assert len(read.notes) == (note is not None)
    assert note is None or note in read.notes[0]


def test_spaces_within_the_one_tag_of_a_cell() -> None:
    read = read_cells(cells(["dining table", "cat", "dining table"]), one_tag=True)
    assert list(read.tags.values()) == [("dining table",), ("cat",)]
    assert read.doubts == {}


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "null", "N/A", "#N/A", "-", "?"])
def test_missing_values_are_refused(text: str) -> None:
    read = read_cells(cells(["cat", text]))
    assert list(read.tags.values()) == [("cat",)]
    (fault,) = read.faults
    assert fault.startswith(f"line 2 has {text!r} for tags. Leave the cell empty where")


def test_control_characters_are_refused_and_cut() -> None:
    (fault,) = read_cells(cells(["\x1b" * 100_000])).faults
    assert "control characters" in fault
    assert "\x1b" not in fault
    assert len(fault) < 500


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["dining table", "cat", "dining table cat"], ("dining", "table")),
        (["cat;dog", "cat, dog", "dog"], ("cat, dog",)),
        (["cat;dog", "Dog/Cat"], ("Dog/Cat",)),
        (["cat;dog", "cat & owl"], ("cat & owl",)),
        (["cat;dog", "cat dog"], ("cat dog",)),
    ],
)
def test_doubts(texts: list[str], words: tuple[str, ...]) -> None:
    read = read_cells(cells(texts))
    assert list(read.doubts) == [words]
    assert "classes.txt" in read.doubts[words]


@pytest.mark.parametrize(
    "texts",
    [
        ["cat dog", "dog", "cat dog"],
        ["cat dog", "dog cat"],
        ["cat dog"],
        ["tench, Tinca tinca;owl", "owl"],
        ["dining table;table", "table"],
    ],
)
def test_no_doubts(texts: list[str]) -> None:
    assert read_cells(cells(texts)).doubts == {}


@given(st.lists(st.text()))
def test_any_text_is_read_or_refused(texts: list[str]) -> None:
    given_cells = cells(texts)
    read = read_cells(given_cells)
    assert len(read.tags) + len(read.faults) == len(given_cells)
    assert all(tag == tag.strip() and tag for of_cell in read.tags.values() for tag in of_cell)
