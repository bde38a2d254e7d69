"""`tags.csv`: the image-level labels, as people's spreadsheets have them."""

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from weakseg.data.formats.base import TagRow, TagTable, alike, name_fault, normal, read_text
from weakseg.data.formats.tag_cells import Cell, read_cells
from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.data.names import base_name, loose_key
from weakseg.errors import WeaksegError, listed, quoted

TAGS_CSV = "tags.csv"

_FILE_NAMES = (TAGS_CSV, "tags.tsv", "tags.txt")
_TABLES = frozenset({".csv", ".tsv"})
_WORKBOOKS = frozenset({".xlsx", ".xls", ".ods"})
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_DELIMITER_LINE = re.compile('"?sep=(.)"?\r?\n')  # Excel's own way to say it


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IMAGE = _words(
    "image images img photo photos picture file files filename filepath path imagename imagefile"
    " imagepath photoname imageid photoid id url imageurl"
)
_TAGS = _words("tag tags label labels class classes category categories")
_ONE_TAG = _words("tag label class category")
_YES = _words("x 1 1.0 yes y true t ja oui sí si wahr vrai ✓ ✔ ☑")
_NO = _words("0 0.0 no n false f nein non falsch faux ✗ ✘ ☐")
_MARKS = _YES | _NO


@dataclass(frozen=True, slots=True)
class _Record:
    """A line's cells, stripped, and its number."""

    line: int
    cells: Sequence[str]

    @property
    def filled(self) -> int:
        """How many cells there are without the empty ones at the end."""
        if self.cells and self.cells[-1]:
            return len(self.cells)
        return next((n for n in range(len(self.cells), 0, -1) if self.cells[n - 1]), 0)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A table of which the column with the photos is known.

    Attributes:
        path: the file.
        delimiter: what separates its columns.
        named: whether the first line has the columns' names.
        header: the columns' names.
        columns: the cells of each; what is there often in one is there once.
        lines: the number of each row's line.
        image: index of the column with the photos.
        faults: lines that have another number of cells.
    """

    path: Path
    delimiter: str
    named: bool
    header: Sequence[str]
    columns: Sequence[Sequence[str]]
    lines: Sequence[int]
    image: int
    faults: tuple[str, ...]

    @property
    def others(self) -> list[int]:
        """The columns that have a name, but that with the photos."""
        return [i for i, name in enumerate(self.header) if name and i != self.image]

    def where(self, row: int) -> str:
        return f"{self.path.name} line {self.lines[row]}"

    def names(self, columns: Iterable[int]) -> str:
        return listed([quoted(self.header[i]) for i in columns], 20)


@dataclass(frozen=True, slots=True)
class _Records:
    """The lines of a table that aren't blank, read anew each time: they would take most memory."""

    path: Path
    text: str
    delimiter: str

    def __iter__(self) -> Iterator[_Record]:
        # A StringIO would hold four bytes of each letter.
        lines = io.TextIOWrapper(io.BytesIO(self.text.encode()), "utf-8", newline="")
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        try:
            for row in reader:
                record = _Record(reader.line_num, tuple(map(str.strip, row)))
                if record.filled:
                    yield record
        except csv.Error as error:
            raise WeaksegError(
                f"{self.path} line {reader.line_num} is no CSV: {error}. Check its quotes."
            ) from error

    def first(self) -> Sequence[str]:
        """The cells of the first line; none where columns are separated otherwise."""
        try:
            return next((record.cells for record in self), ())
        except WeaksegError:
            return ()


@dataclass(frozen=True, slots=True)
class _Rows(Collection[TagRow]):
    """A sheet's rows; one whose tags are None can't be used."""

    sheet: _Sheet
    tags: Sequence[tuple[str, ...] | None]

    def __iter__(self) -> Iterator[TagRow]:
        for _, row in self.numbered():
            yield row

    def __len__(self) -> int:
        return len(self.tags) - self.tags.count(None)

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def numbered(self) -> Iterator[tuple[int, TagRow]]:
        images = self.sheet.columns[self.sheet.image]
        for number, (image, tags) in enumerate(zip(images, self.tags, strict=True)):
            if tags is not None:
                yield number, TagRow(image, tags, self.sheet.where(number))


@dataclass(frozen=True, slots=True)
class _Read:
    """The tags of a sheet's rows, None where they can't be used; the others as of a `TagTable`."""

    tags: list[tuple[str, ...] | None]
    faults: Sequence[str]
    notes: tuple[str, ...]
    doubts: Mapping[tuple[str, ...], str] = field(default_factory=dict)


def find_tags_csv(root: Path) -> Path | None:
    """`tags.csv` of a folder, which may be called `tags.tsv` or `tags.txt`, in whatever case."""
    return next((path for path in alike(root, _FILE_NAMES) if path.is_file()), None)


def no_tags_csv(root: Path) -> WeaksegError:
    """The error for a folder without a table of tags, with what may be meant to be one."""
    hint = ""
    for path in sorted(filter(Path.is_file, root.iterdir())):
        if path.suffix.lower() in _WORKBOOKS:
            hint = f" Save {quoted(path.name)} under that name, as CSV UTF-8."
        elif path.suffix.lower() in _TABLES:
            hint = f" If {quoted(path.name)} has the tags, give it that name."
    return WeaksegError(
        f"There is no {root / TAGS_CSV}. Write one, with a row image,tags for each photo.{hint}"
    )


def read_tags_csv(path: Path, ids: Collection[str] = ()) -> TagTable:
    """Read a table with a column of photos, and a column of tags or one for each tag.

    - Columns are separated by commas, semicolons or tabs.
    - The photos' column is called `image`, `photo`, `file name` or the like; or it is the one that
      has the photos' names, and then the line with the columns' names may be missing.
    - The tags are in the column `tags`, or else in all called `label`, `class` or the like, split
      as `read_cells` does it. Where there is none, the columns that hold x, 1 or yes are called
      after the tags that they mark. Where there are none either, the only other column has the
      tags. The rest is passed over.
    - A row without a tag says that none of the classes is in the photo.

    Args:
        ids: the photos, or some of them.

    Raises:
        WeaksegError: if the file can't be read as such a table. Rows that can't be used are
            faults of the table instead.
    """
    sheet = _read_sheet(path, ids)
    marks = _marks(sheet)
    read = _read_marks(sheet, marks) if marks else _read_lists(sheet, _lists(sheet))
    rows = _Rows(sheet, read.tags)
    faults = [*sheet.faults, *read.faults]
    for number, row in rows.numbered():
        if fault := name_fault(base_name(row.image)):
            faults.append(f"{row.where} {fault}.")
            read.tags[number] = None
    return TagTable(rows, tuple(faults), read.notes, read.doubts)


def _read_lists(sheet: _Sheet, columns: Sequence[int]) -> _Read:
    one_tag = len(columns) > 1 or _word(sheet.header[columns[0]]) in _ONE_TAG
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # of a million rows few differ
    cells = zip(*(map(normal, sheet.columns[i]) for i in columns), strict=True)
    texts = [known.setdefault(of_row, of_row) for of_row in cells]
    counts = Counter(chain.from_iterable(texts))
    first: dict[str, str] = {}
    for row, of_row in enumerate(texts):
        for text in of_row:
            if text not in first:
                first[text] = sheet.where(row)
    read = read_cells([Cell(text, first[text], n) for text, n in counts.items()], one_tag)
    tags = {
        of_row: tuple(tag for text in of_row for tag in read.tags[text])
        for of_row in known
        if all(text in read.tags for text in of_row)
    }
    understood = []
    if [sheet.header[i].casefold() for i in columns] != ["tags"]:
        understood.append(f"tags in {sheet.names(columns)}")
    understood.extend(read.notes)
    notes = _notes(sheet, columns, understood)
    return _Read(list(map(tags.get, texts)), read.faults, notes, read.doubts)


def _read_marks(sheet: _Sheet, columns: Sequence[int]) -> _Read:
    names = {i: normal(sheet.header[i]) for i in columns}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # of a million rows few differ
    of_rows: list[tuple[str, ...] | None] = []
    faults: list[str] = []
    for row in range(len(sheet.lines)):
        cells = {i: sheet.columns[i][row].casefold() for i in columns}
        tags = tuple(names[i] for i in columns if cells[i] in _YES)
        of_rows.append(known.setdefault(tags, tags))
        faults += [
            f"{sheet.where(row)} has {quoted(cell)} in the column {quoted(sheet.header[i])}."
            " Write x, 1 or yes where the tag is in the photo, else no, 0 or nothing; or call the"
            " column tags, if it has the tags' names."
            for i, cell in cells.items()
            if cell and cell not in _MARKS
        ]
    understood = [f"a column for each of {len(columns)} tags: {sheet.names(columns)}"]
    return _Read(of_rows, faults, _notes(sheet, columns, understood))


def _notes(sheet: _Sheet, columns: Collection[int], tags: Sequence[str]) -> tuple[str, ...]:
    understood = []
    if sheet.delimiter != ",":
        understood.append(
            f"columns separated by {_DELIMITERS.get(sheet.delimiter, sheet.delimiter)}"
        )
    if not sheet.named:
        understood.append("no line with the columns' names")
    elif sheet.header[sheet.image].casefold() != "image":
        understood.append(f"photos in {sheet.names([sheet.image])}")
    understood.extend(tags)
    if left := [i for i in sheet.others if i not in columns]:
        understood.append(f"passed over: {sheet.names(left)}")
    return (f"{sheet.path.name}: {'; '.join(understood)}",) if understood else ()


def _lists(sheet: _Sheet) -> list[int]:
    """The columns with names of tags.

    Raises:
        WeaksegError: if it isn't plain which they are, or they have marks in place of names.
    """
    filled = [i for i in sheet.others if any(sheet.columns[i])]
    columns = _named_for_tags(sheet) or filled or sheet.others
    if not columns or len({_word(sheet.header[i]) for i in columns}) > 1:
        raise WeaksegError(
            f"{sheet.path} has the columns {sheet.names(range(len(sheet.header)))}: which has the"
            " tags? Name that column tags; or have image and a column for each tag alone, with x or"
            " 1 where the photo shows it and 0 or nothing where not."
        )
    values = {cell.casefold() for i in columns for cell in sheet.columns[i]} - {""}
    if values <= _MARKS and values & _YES and values & _NO:
        raise WeaksegError(
            f"{sheet.path} has nothing but {listed(sorted(values))} in {sheet.names(columns)}. Name"
            " such a column after the tag that it marks, or write the tags' names into it."
        )
    return columns


def _named_for_tags(sheet: _Sheet) -> list[int]:
    exact = [i for i in sheet.others if sheet.header[i].casefold() == "tags"]
    return exact or [i for i in sheet.others if _word(sheet.header[i]) in _TAGS]


def _marks(sheet: _Sheet) -> list[int]:
    """The columns that mark a tag: those in which most cells that aren't empty are marks.

    A single one beside columns of texts may as well say that somebody has looked.
    """
    columns: list[int] = []
    texts: list[int] = []
    for i in sheet.others if not _named_for_tags(sheet) else ():
        cells = Counter(map(str.casefold, sheet.columns[i]))
        filled = cells.total() - cells[""]
        if filled:
            marks = sum(count for cell, count in cells.items() if cell in _MARKS)
            (columns if 2 * marks > filled else texts).append(i)
    return columns if len(columns) > 1 or not texts else []


def _read_sheet(path: Path, ids: Collection[str]) -> _Sheet:
    """Find delimiter and photos' column by the columns' names, else by the photos' names."""
    text = read_text(path)
    delimiters = list(_DELIMITERS)
    if told := _DELIMITER_LINE.match(text):
        delimiters, text = [told[1]], f"\n{text[told.end() :]}"
    keys = {loose_key(image) for image in ids}
    for delimiter in delimiters:
        records = _Records(path, text, delimiter)
        named = [i for i, name in enumerate(records.first()) if _is_for_image(name)]
        if named:
            image = _photos_column(records, keys, named)
            if image is None:
                image = _photos_column(records, keys)
            del keys  # of a million photos a tenth of a gigabyte
            return _sheet(records, named[0] if image is None else image, True)
    for delimiter in delimiters:
        records = _Records(path, text, delimiter)
        try:
            image = _photos_column(records, keys)
        except WeaksegError:  # columns are separated otherwise
            continue
        if image is not None:
            first = normal(records.first()[image])
            is_photo = loose_key(first) in keys or Path(first).suffix.lower() in PHOTO_SUFFIXES
            del keys
            return _sheet(records, image, not is_photo)
    start = text.strip().partition("\n")[0].strip()
    if not start:
        raise WeaksegError(f"{path} is empty. Write a line image,tags and one for each photo.")
    raise WeaksegError(
        f"{path} starts with {quoted(start)}, where the columns image,tags are expected. Name them"
        " in the first line."
    )


def _sheet(records: _Records, image: int, named: bool) -> _Sheet:
    path = records.path
    if named:
        header = next(record.cells[: record.filled] for record in records)
    elif (width := max(record.filled for record in records)) > 2:
        raise WeaksegError(
            f"{path} has {width} columns and no names for them. Add a first line that does:"
            " image,tags and so on."
        )
    else:
        header = ["tags", "tags"]
    columns: list[list[str]] = [[] for _ in header]
    lines = array("q")
    known: dict[str, str] = {}
    faults = []
    for record in islice(records, int(named), None):
        if record.filled <= len(header) <= len(record.cells):
            lines.append(record.line)
            for i, (column, cell) in enumerate(zip(columns, record.cells, strict=False)):
                column.append(normal(cell) if i == image else known.setdefault(cell, cell))
        else:
            more = record.filled > len(header)
            faults.append(
                f"{path.name} line {record.line} has {record.filled if more else len(record.cells)}"
                f" cells, where the header has {len(header)}; "
                + ("separate tags by ;." if more else "an empty cell says that there is no tag.")
            )
    return _Sheet(path, records.delimiter, named, header, columns, lines, image, tuple(faults))


def _photos_column(
    records: _Records, keys: Collection[str], columns: Sequence[int] = ()
) -> int | None:
    """The one of `columns` that names most photos, if any; or of all, if it names half of them.

    Args:
        keys: the photos' `loose_key`s.
    """
    hits: dict[int, int] = {}
    number = 0
    for number, record in enumerate(records, 1):
        if number == 1:
            hits = dict.fromkeys(columns or range(record.filled), 0)
        for i in hits:
            if i < len(record.cells):
                hits[i] += loose_key(normal(record.cells[i])) in keys
    enough = 1 if columns else max(1, min(number, len(keys)) / 2)
    best = max(hits, key=hits.__getitem__, default=None)
    return best if best is not None and hits[best] >= enough else None


def _is_for_image(name: str) -> bool:
    return _word(name) in _IMAGE and not name[-1].isdecimal()  # img_1 is a photo


def _word(name: str) -> str:
    """A column's name without spaces, `_` and `-`, and a number at its end: `Tag 1` is `tag`."""
    return re.sub(r"[\s_-]+|\d+$", "", name.casefold())
