"""A run's folder: who writes into it, and the record of what is done."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, ValidationError

from weakseg import stores
from weakseg.errors import WeaksegError, mismatch
from weakseg.files import cannot_write, read_json, remove_partial_files, write_json
from weakseg.progress import Progress

RECORD = "run.json"
LOCK = "run.lock"

_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems say that have no locks."""


class Owner(BaseModel):
    """The process that writes into the folder, or that did so last."""

    pid: int
    host: str
    since: str


class StepRecord(BaseModel):
    """How far a step is.

    Attributes:
        fingerprint: of all that its results depend on.
        digests: of its tables, by path in the run's folder, once it is finished.
        settled: the time of the last change to its files when it was finished, as the file system
            has it, in ns; 0 where that is unknown.
    """

    fingerprint: str
    finished: bool = False
    seconds: float = 0.0
    digests: dict[str, str] = Field(default_factory=dict)
    settled: int = 0


class Record(BaseModel):
    """What `run.json` holds."""

    version: str = ""
    seed: int = 0
    device: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    owner: Owner | None = None
    steps: dict[str, StepRecord]


@contextmanager
def owned(folder: Path, progress: Progress) -> Iterator[Record]:
    """Be the one run that writes into a folder, which is made if it is not there; give its record.

    The system's lock on `run.lock` ends with this process, however that ends. A folder of a store
    is locked there as well (`weakseg.stores.owned`).

    Raises:
        WeaksegError: another process has it, the folder is no run's, or it can't be written.
    """
    read_record(folder)
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise _in_use(folder) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(folder, error) from error
        progress.say(f"{folder} can't be locked: let no other run write into it meanwhile")
    try:
        with stores.owned(folder):
            record = read_record(folder)
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            record.owner = Owner(pid=os.getpid(), host=socket.gethostname(), since=since)
            remove_partial_files(folder)
            yield record
    finally:
        lock.release()


def write_record(folder: Path, record: Record) -> None:
    write_json(folder / RECORD, record.model_dump(mode="json"))


def read_record(folder: Path) -> Record:
    """The record of a run's folder; an empty one of a folder that is empty or not there.

    Raises:
        WeaksegError: it is no run's folder, or an older weakseg's.
    """
    path = folder / RECORD
    if path.exists():
        content = read_json(path)
        if isinstance(content, dict) and "stages" in content:
            raise WeaksegError(
                f"{folder} was made by an older weakseg, whose runs this one can't go on with. "
                "Choose another folder."
            )
        try:
            return Record.model_validate(content)
        except ValidationError as error:
            raise WeaksegError(
                f"{path} is no record of a run ({mismatch(error)}). Choose another folder."
            ) from error
    if folder.exists() and (not folder.is_dir() or any(map(_is_kept, folder.iterdir()))):
        raise WeaksegError(
            f"{folder} exists and is no run's folder (it has no {RECORD}). Choose another."
        )
    return Record(steps={})


def _is_kept(path: Path) -> bool:
    """Whether it is more than what a run leaves that was killed before it wrote its record."""
    return path.name != LOCK and not path.name.startswith(stores.PARTIAL)


def _in_use(folder: Path) -> WeaksegError:
    try:
        owner = read_record(folder).owner
    except WeaksegError:  # it has only just begun
        owner = None
    who = f"process {owner.pid} on {owner.host}, since {owner.since}" if owner else "just begun"
    return WeaksegError(
        f"{folder} is in use by another run ({who}). Wait for it, or choose another folder."
    )
