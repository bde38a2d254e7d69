"""Files that are written whole or not at all."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weakseg.errors import WeaksegError

_TEMPORARY_PREFIX = ".partial-"


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its name when the block ends well.

    The temporary name keeps the suffix of `path`, because writers choose a format by it.
    After an exception, or a kill, `path` is what it was before.

    Raises:
        WeaksegError: if the folder can't be written or the disk is full.
    """
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed writer left in `folder`."""
    for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        WeaksegError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeaksegError(f"There is no file {path}.") from None
    except (ValueError, OSError) as error:
        raise WeaksegError(f"{path} can't be read as JSON: {error}.") from error


def _cannot_write(path: Path, error: OSError) -> WeaksegError:
    return WeaksegError(
        f"Can't write {path}: {error.strerror or error}. Free some space or choose another folder."
    )


def stamp(path: Path) -> list[int]:
    """Size and time of change of a file, which tell of its content without reading it.

    Raises:
        WeaksegError: if there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise WeaksegError(f"{path} can't be read: {error.strerror}.") from error
    return [status.st_size, status.st_mtime_ns]


def stamps(path: Path) -> dict[str, list[int]]:
    """Name and stamp of a file, or of a folder's files; nothing where neither is."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: stamp(file) for file in files if file.is_file()}
