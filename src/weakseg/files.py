"""Files that are written whole or not at all."""

import csv
import errno
import glob
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weakseg import stores
from weakseg.errors import WeaksegError, mismatch, shortened
from weakseg.shards import content, member_of

if TYPE_CHECKING:
    from pydantic import BaseModel

_AT_A_TIME = 1000
_MADE_ANEW = "The same `weakseg run` again makes anew what is missing or damaged in its folder."
_SYNCING = 8  # at a time: a file system writes its journal once for all that wait for it


def absolute(path: str | Path) -> Path:
    """A path as a shell would read it, `~` expanded, that no later change of folder moves.

    The address of a folder in a store gives its place here, with its files laid out as they are
    there now (`weakseg.stores`).

    Raises:
        WeaksegError: `~name` of nobody, or a store that can't be listed.
    """
    if place := stores.place_of(str(path)):
        stores.lay_out(place)
        return place
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise WeaksegError(f"{path}: {error} Write the folder out.") from error


@contextmanager
def write_atomically(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its name when the block ends well.

    The temporary name keeps the suffix of `path`, because writers choose a format by it.
    After an exception, or a kill, `path` is what it was before.

    Args:
        durable: whether it is so after a power cut as well. That takes milliseconds a file; what
            is made by the thousand goes to `sync_files` together instead.

    Raises:
        WeaksegError: if the folder can't be written or the disk is full.
    """
    temporary = path.with_name(f"{stores.PARTIAL}{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        stores.put(temporary, path)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def write_folder(path: Path, of: str | None = None) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its name when the block ends well.

    A folder that is there is replaced then. After an exception `path` is what it was before.

    Args:
        of: what its files are made of, as a digest. After an exception, or a kill, those that are
            whole stay for the next to write a folder of the same there.

    Raises:
        WeaksegError: if it can't be written or the disk is full.
    """
    unfinished = f"{stores.PARTIAL}{path.name}-"
    temporary, before = (path.with_name(f"{stores.PARTIAL}{uuid.uuid4().hex}") for _ in range(2))
    if of:
        temporary = path.with_name(f"{unfinished}{of}")
    try:
        for other in path.parent.glob(f"{glob.escape(unfinished)}*"):
            if other != temporary and "-" not in other.name.removeprefix(unfinished):
                _remove_here(other)
        temporary.mkdir(parents=True, exist_ok=True)
        for leftover in list(temporary.rglob(f"{stores.PARTIAL}*")):
            _remove_here(leftover)
        yield temporary
        stores.remove(path)
        stores.put(temporary, path)
        if path.exists():
            path.rename(before)
        temporary.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            if before.exists() and not path.exists():
                before.rename(path)
        kept = of and any(file.is_file() for file in temporary.rglob("*"))
        for leftover in (before,) if kept else (temporary, before):
            with suppress(OSError):
                _remove_here(leftover)


def sync_files(paths: Iterable[Path]) -> None:
    """Have files, and their places in their folders, outlast a power cut.

    Raises:
        WeaksegError: if the disk can't hold them.
    """
    remaining, folders = iter(paths), set[Path]()
    with ThreadPoolExecutor(_SYNCING) as pool:
        while files := list(islice(remaining, _AT_A_TIME)):
            folders.update(path.parent for path in files)
            for _ in pool.map(_sync, files):
                pass
    for folder in {*folders, *(folder.parent for folder in folders)}:
        _sync(folder)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed writer left in `folder`."""
    for leftover in folder.glob(f"{stores.PARTIAL}*"):
        remove(leftover)  # of an export it is a folder


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if there is one."""
    _remove_here(path)
    stores.remove(path)


def _remove_here(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with write_atomically(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows(rows)
    write_text(path, table.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def read_bytes(path: Path) -> bytes:
    """The content of a file that may lie in a store or in a tar file."""
    if member := member_of(path):
        return content(member)
    stores.bring(path)
    return path.read_bytes()


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_entries(
    path: Path,
    entries: Iterable[tuple[str, Any]],
    under: str = "",
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write a JSON object an entry a line, as they come: of a million photos, say.

    Args:
        under: its name in another object, if it is in one.
        beside: what else that has.
    """
    outer = {**(beside or {}), under: {}} if under else {}
    ends = "}}" if under else "}"
    head = json.dumps(outer, ensure_ascii=False).removesuffix(ends)
    with (
        write_atomically(path, durable=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(head)
        for number, (name, value) in enumerate(entries):
            between = ",\n" if number else "\n"
            entry = json.dumps(value, ensure_ascii=False)
            file.write(f"{between}{json.dumps(name, ensure_ascii=False)}: {entry}")
        file.write(f"\n{ends}\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        WeaksegError: if it is missing or no JSON.
    """
    stores.bring(path)
    _check_endless(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeaksegError(f"There is no file {path}.") from None
    except (ValueError, OSError, RecursionError) as error:
        raise WeaksegError(f"{path} can't be read as JSON: {error}.") from error


def read_entries(path: Path, under: str = "") -> tuple[Any, Iterator[tuple[str, Any]]]:
    """What `write_entries` has written, of whose entries some are in memory at a time.

    JSON that is laid out otherwise is read as a whole.

    Returns:
        The object, which may lack its entries, and their names and values.

    Raises:
        WeaksegError: if the file is missing or no JSON.
    """
    stores.bring(path)
    _check_endless(path)
    end = "}}" if under else "}"
    with suppress(ValueError, OSError, RecursionError), path.open(encoding="utf-8") as file:
        outer = json.loads(f"{file.readline()}{end}")
        if (outer.get(under) if under else outer) == {} and file.read(1) in ('"', "}"):
            return outer, _entries_by_line(path, f"{end}\n")
    outer = read_json(path)
    return outer, _entries_of(outer, under)


def _entries_by_line(path: Path, end: str) -> Iterator[tuple[str, Any]]:
    ended = False
    with written_by_run(path), path.open(encoding="utf-8") as file:
        next(file)
        while lines := list(islice(file, _AT_A_TIME)):
            if ended := lines[-1] == end:
                lines.pop()
            yield from json.loads(f"{{{''.join(lines).rstrip().removesuffix(',')}}}").items()
        if not ended:
            raise ValueError("it has no end")


def _entries_of(outer: Any, under: str) -> Iterator[tuple[str, Any]]:
    yield from (outer[under] if under else outer).items()


def read_written(path: Path, kind: "type[BaseModel]") -> Any:
    """What a run has written as JSON, once it is known to have what a model says.

    Raises:
        WeaksegError: if it is missing, or is not such.
    """
    with as_written(path):
        kind.model_validate(content := read_json(path))
    return content


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Have what a model says against the content of a file that a run has written name the file.

    Raises:
        WeaksegError: for a ValidationError in the block.
    """
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        raise WeaksegError(
            f"{path} is not as a run writes it ({mismatch(error)}). {_MADE_ANEW}"
        ) from error


def _check_endless(path: Path) -> None:
    if is_endless(path):
        raise WeaksegError(f"{path} is no regular file. Replace it or remove it.")


def is_endless(path: Path) -> bool:
    """Whether a path is a pipe or a device: whoever opens or reads one may wait for ever."""
    return not path.is_file() and path.exists() and not path.is_dir()


@contextmanager
def usable(path: Path, remedy: str) -> Iterator[None]:
    """Have what fails in reading a file name the file, the cause and the remedy.

    Raises:
        WeaksegError: for any exception in the block, and before it for a pipe or a device.
    """
    stores.bring(path)
    _check_endless(path)
    try:
        yield
    except WeaksegError:
        raise
    except Exception as error:  # readers of broken files raise nearly any type
        raise WeaksegError(f"{path} can't be read: {describe(error)}. {remedy}") from error


def written_by_run(path: Path) -> AbstractContextManager[None]:
    """`usable` for a file that a run has written."""
    return usable(path, _MADE_ANEW)


def describe(error: Exception) -> str:
    """An error's cause on one line of some 200 characters at most."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):
        text = f"it has no {text}"
    return shortened(text.rstrip(".") or type(error).__name__, 200)


def cannot_write(path: Path, error: OSError) -> WeaksegError:
    """The error for a file or folder that can't be written, with the reason and a remedy."""
    in_the_way = next((p for p in path.parents if p.exists()), path)
    if not in_the_way.is_dir():
        reason = f"{in_the_way} is a file, where a folder is needed"
    else:
        reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Free some space or choose another folder" if full else "Choose another folder"
    return WeaksegError(f"Can't write {path}: {reason}. {remedy}.")


def stamp(path: Path) -> list[int]:
    """Size and time of change of a file, which tell of its content without reading it.

    Raises:
        WeaksegError: if there is no such file.
    """
    member = member_of(path)
    try:
        status = (member.tar if member else path).stat()
    except OSError as error:
        raise WeaksegError(f"{path} can't be read: {error.strerror}.") from error
    return [member.size if member else status.st_size, status.st_mtime_ns]


def stamps(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and stamp of a file, or of all files in a folder, however deep; nothing without either.

    They come by name, and of a folder's million files in seconds. A folder that links lead to once
    more counts once.

    Raises:
        WeaksegError: if a folder can't be listed.
    """
    if not path.is_dir():
        if path.is_file():
            yield path.name, stamp(path)
        return
    for name in sorted(_names_in(path)):
        status = os.stat(f"{path}/{name}")  # noqa: PTH116
        yield name, [status.st_size, status.st_mtime_ns]


def _names_in(path: Path) -> Iterator[str]:
    """The files in a folder, however deep, by their paths in it."""
    waiting, seen = [(str(path), "")], set()
    while waiting:
        folder, within = waiting.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                folders = []
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():
                        yield f"{within}{entry.name}"
        except OSError as error:
            raise WeaksegError(f"Can't list {folder}: {error.strerror}.") from error
        waiting += [(f"{folder}/{name}", f"{within}{name}/") for name in sorted(folders)]
