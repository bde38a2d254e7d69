"""Cells of a table that hold the tags of a photo, written as people and programs write lists."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from weakseg.data.formats.base import is_printable
from weakseg.errors import quoted

_SEPARATORS = {";": ";", "|": "|", ",": "commas", "\n": "line breaks"}
_NOT_A_TAG = frozenset({"nan", "none", "null", "na", "n/a", "#n/a", "-", "?"})
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_BETWEEN = (";", "|", ",", "/", "+", "&")


@dataclass(frozen=True, slots=True)
class Cell:
    """Cells with one text: where the first of them is, and how many there are."""

    text: str
    first: str
    count: int

    @property
    def where(self) -> str:
        return self.first if self.count == 1 else f"{self.first} and {self.count - 1} more"


@dataclass(frozen=True, slots=True)
class CellTags:
    """What cells say.

    Attributes:
        tags: a cell's text -> its tags, without the cells that can't be used.
        faults: cells that can't be used, one line each.
        notes: how lists of tags are written, where not with `;` between them.
        doubts: as of a `TagTable`.
    """

    tags: Mapping[str, tuple[str, ...]]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    doubts: Mapping[tuple[str, ...], str]


def read_cells(cells: Collection[Cell], one_tag: bool = False) -> CellTags:
    """Split cells into tags.

    What separates the tags is the same in all cells: the first of `;`, `|`, `,` and a line break
    that any cell has, and line breaks in any case; without any of these, white space. Lists in
    brackets, as programs write them, are read as such. A cell may be empty.

    Args:
        cells: of one table, no two with one text.
        one_tag: whether white space belongs to a tag, as where each cell has one.
    """
    tags: dict[str, tuple[str, ...]] = {}
    faults = []
    plain = []
    for cell in cells:
        if not is_printable(" ".join(cell.text.split())):
            shown = quoted(cell.text)
            faults.append(f"{cell.where} has control characters in {shown}; remove them.")
        elif cell.text.casefold() in _NOT_A_TAG:
            faults.append(
                f"{cell.where} has {quoted(cell.text)} for tags. Leave the cell empty where the"
                " photo shows none of the classes; remove the line where nobody looked."
            )
        elif _BRACKETS.get(cell.text[:1]) == cell.text[-1:] and len(cell.text) > 1:
            tags[cell.text] = _listed(cell.text[1:-1])
        else:
            plain.append(cell)
    notes = ["tags as lists in brackets"] if tags else []
    separator = next((s for s in _SEPARATORS if any(s in cell.text for cell in plain)), None)
    if separator is None and not one_tag:
        separator = " "
    split = {cell.text: _split(cell.text, separator) for cell in plain}
    if separator and separator != ";" and any(len(of_cell) > 1 for of_cell in split.values()):
        notes.append(f"tags separated by {_SEPARATORS.get(separator, 'spaces')}")
    tags |= split
    doubts = dict(_joined(cells, tags))
    if separator == " ":
        doubts |= _side_by_side(plain, tags)
    return CellTags(tags, tuple(faults), tuple(notes), doubts)


def _split(text: str, separator: str | None) -> tuple[str, ...]:
    parts = text.split() if separator == " " else re.split(f"[\n{separator or ''}]", text)
    return tuple(tag for part in parts if (tag := _bare(part)))


def _listed(inner: str) -> tuple[str, ...]:
    """Items of a list: `'a', 'b'`, `'a' 'b'` as NumPy has it, or `a, b`."""
    items = _QUOTED.findall(inner)
    if items and not _QUOTED.sub("", inner).strip(" ,;\n"):
        return tuple(tag for one, other in items if (tag := (one or other).strip()))
    return _split(inner, ",")


def _bare(part: str) -> str:
    part = part.strip()
    return part[1:-1].strip() if len(part) > 1 and part[0] == part[-1] in "\"'" else part


def _joined(
    cells: Iterable[Cell], tags: Mapping[str, Sequence[str]]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Tags whose parts are tags as well: joined by what separates none, or by spaces."""
    first: dict[str, Cell] = {}
    for cell in cells:
        for tag in tags.get(cell.text, ()):
            first.setdefault(tag, cell)
    known = {tag.casefold() for tag in first}
    for tag, cell in first.items():
        between = [s for s in _BETWEEN if s in tag and known & _parts(tag, s)]
        if not between and " " in tag and known >= _parts(tag, " "):
            between = [" "]
        if between:
            yield (
                (tag,),
                f"{cell.where} has {quoted(tag)}, of which parts are tags elsewhere. Separate all"
                f" tags by ; instead of {between[0]!r}, or list it in classes.txt if it is one.",
            )


def _side_by_side(
    cells: Iterable[Cell], tags: Mapping[str, Sequence[str]]
) -> dict[tuple[str, ...], str]:
    """Two words, again and again with a space between them, of which none is ever alone."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        words.update(dict.fromkeys(tags[cell.text], cell.count))
        for pair in pairwise(tags[cell.text]):
            pairs[pair] += cell.count
            first.setdefault(pair, cell)
    return {
        pair: (
            f"{first[pair].first} and {count - 1} more have {quoted(' '.join(pair))}, one tag or"
            " two? Write ; after each tag of every cell, or list the tags in classes.txt."
        )
        for pair, count in pairs.items()
        if count > 1 and words[pair[0]] == words[pair[1]] == count
    }


def _parts(tag: str, separator: str) -> set[str]:
    return {part.strip() for part in tag.casefold().split(separator)}
