"""The formats that a data set may have. A new one is a file here and a line in `FORMATS`."""

from collections.abc import Iterable
from pathlib import Path

from weakseg.data.formats.base import Format, is_photo
from weakseg.data.formats.coco import Coco
from weakseg.data.formats.folder_per_class import FolderPerClass
from weakseg.data.formats.ilsvrc import Ilsvrc
from weakseg.data.formats.tagged_folder import TaggedFolder
from weakseg.data.formats.tags_csv import no_tags_csv
from weakseg.data.formats.voc import Voc
from weakseg.data.formats.webdataset import WebDataset
from weakseg.errors import WeaksegError, unknown_name

FORMATS: dict[str, Format] = {
    "voc": Voc(),
    "ilsvrc": Ilsvrc(),
    "coco": Coco(),
    "webdataset": WebDataset(),
    "tagged-folder": TaggedFolder(),
    "folder-per-class": FolderPerClass(),
}
"""In the order in which a folder is tried: from the most to the least peculiar."""


def find_format(root: Path, name: str) -> Format:
    """The format called `name`, or for "auto" the first that the folder looks like.

    Raises:
        WeaksegError: if there is no such folder or format, or the folder doesn't look like it.
    """
    if name != "auto" and name not in FORMATS:
        raise unknown_name("format", name, [*FORMATS, "auto"])
    if not root.is_dir():
        raise WeaksegError(f"There is no folder {root}. Give the folder that holds the data set.")
    candidates = list(FORMATS.values()) if name == "auto" else [FORMATS[name]]
    doubts = {}
    for candidate in candidates:
        if candidate.matches(root):
            doubt = candidate.doubt(root) if name == "auto" else None
            if doubt is None:
                return candidate
            doubts[candidate.name] = doubt
    hint = "".join(
        f" It has {doubt}. If that is {named} all the same, say --format {named}."
        for named, doubt in doubts.items()
    )
    if inner := [child for child in sorted(root.iterdir()) if _holds_one(child, candidates)]:
        hint = f" Did you mean {inner[0]}?"
    elif not doubts and any(path.is_file() and is_photo(path) for path in root.iterdir()):
        raise no_tags_csv(root)
    expected = "; ".join(f"{c.name}: {c.summary}" for c in candidates)
    raise WeaksegError(f"{root} holds no data set.{hint} Expected one of: {expected}.")


def _holds_one(folder: Path, candidates: Iterable[Format]) -> bool:
    try:
        return folder.is_dir() and any(
            c.matches(folder) and not c.doubt(folder) for c in candidates
        )
    except (OSError, WeaksegError):  # another user's
        return False
