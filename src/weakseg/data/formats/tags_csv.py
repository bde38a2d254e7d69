"""`tags.csv`: the image-level labels, one row an image."""

import csv
import io
from pathlib import Path

from weakseg.data.formats.base import (
    TagRow,
    TagTable,
    is_printable,
    name_fault,
    normal,
    read_text,
)
from weakseg.errors import WeaksegError

TAGS_CSV = "tags.csv"


def read_tags_csv(path: Path) -> TagTable:
    """Read a table with the columns `image` and `tags`; others are passed over.

    Tags are separated by `;` if any cell has one, else by white space. An empty cell says that
    none of the classes is in the image.

    Raises:
        WeaksegError: if the file can't be read as such a table. Rows that can't be used are
            faults of the table instead.
    """
    if not path.is_file():
        raise WeaksegError(f"There is no {path}. Write one, with a row image,tags for each photo.")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    cells: list[tuple[str, str, str]] = []
    faults: list[str] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"image", "tags"} <= set(header):
            raise WeaksegError(
                f"{path} starts with {','.join(header)!r}, where the columns image,tags are"
                " expected. Name them in the first line and separate columns by commas."
            )
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                faults.append(
                    f"{where} has {len(row)} cells, where the header has {len(header)};"
                    " separate tags by ; or by spaces, not by commas."
                )
                continue
            image, tags = (normal(row[header.index(name)].strip()) for name in ("image", "tags"))
            if fault := name_fault(image):
                faults.append(f"{where} {fault}.")
            elif not is_printable(" ".join(tags.split())):
                faults.append(f"{where} has control characters in {tags!r}; remove them.")
            else:
                cells.append((image, tags, where))
    except csv.Error as error:
        raise WeaksegError(
            f"{path} line {reader.line_num} is no CSV: {error}. Check its quotes."
        ) from error
    separator = ";" if any(";" in tags for _, tags, _ in cells) else None
    rows = (TagRow(image, _split(tags, separator), where) for image, tags, where in cells)
    return TagTable(tuple(rows), tuple(faults))


def _split(tags: str, separator: str | None) -> tuple[str, ...]:
    return tuple(tag for part in tags.split(separator) if (tag := part.strip()))
