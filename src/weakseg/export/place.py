"""The folder of an export: whole or absent, and nobody's work written over."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weakseg.errors import WeaksegError
from weakseg.files import read_json, write_folder, write_json

MARK = "weakseg-export.json"
"""Says what an export is; written last, so that whatever is newer is somebody's own."""


@contextmanager
def whole_folder(
    out: Path, about: Mapping[str, Any], of: Callable[[], str] | None = None
) -> Iterator[Path]:
    """Give an empty folder that takes the name `out` when the block ends well.

    An export that is there is replaced.

    Args:
        about: what `weakseg-export.json` says.
        of: gives a digest of what the export is made of, where it may be gone on with after a kill:
            the folder then has the files that were whole. See `weakseg.files.write_folder`.

    Raises:
        WeaksegError: `out` is no export, or one in which something was changed; or it can't be
            written.
    """
    check_replaceable(out)
    with write_folder(out, of() if of else None) as temporary:
        yield temporary
        files = sum(path.is_file() for path in temporary.rglob("*"))
        write_json(temporary / MARK, {**about, "files": files})


def check_replaceable(out: Path) -> None:
    """Refuse a folder that is not free, nor an export as it was written.

    Raises:
        WeaksegError: it is neither.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    mark = out / MARK
    if not mark.is_file():
        raise WeaksegError(f"{out} exists and is no export (it has no {MARK}). Choose another.")
    written = mark.stat().st_mtime_ns
    others = [path for path in out.rglob("*") if path.is_file() and path != mark]
    newer = [path for path in others if path.stat().st_mtime_ns > written]
    about = read_json(mark)
    if newer or not isinstance(about, dict) or len(others) != about.get("files"):
        changed = f"such as {newer[0].relative_to(out)}" if newer else "or has more or fewer files"
        raise WeaksegError(
            f"{out} is an export that was changed since, {changed}. Choose another folder, or move "
            "this one."
        )
