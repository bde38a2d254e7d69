"""Folders in object storage, each with a place on this machine.

`s3://bucket/a/b` is `CACHE/s3/bucket/a/b` here, by its name alone, so that any process finds the
one from the other. There the store's objects lie as files: those that have been read or written,
and of the others a stand-in, which has the object's size and time, no content, and no permission to
read. What lists, compares times or asks whether a file is there needs to know nothing of stores.

- `lay_out` lists a place of the store and makes its files here the same;
- `bring` gives a stand-in its content, before a file is read;
- `put` and `remove` follow what was written or removed here (`weakseg.files`);
- `owned` keeps other machines from a run's folder.

An object is put by one request, so that it is there as a whole or not at all; what was not put
before a kill is no longer there at the next `lay_out`. Credentials and the server's address are
those of the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
"""

import hashlib
import io
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from weakseg.errors import WeaksegError, shortened

SCHEMES = ("s3",)
CACHE = "WEAKSEG_CACHE"
"""The variable of the environment that names the folder for files of stores."""

OWNER = "run.lock"
"""In a run's folder, what says who writes into it; not a file here."""

PARTIAL = ".partial-"
"""What a file's name begins with while it is written."""

_ADDRESS = re.compile(r"([a-z][a-z\d+.-]+):/+([^/]+)/*(.*)", re.IGNORECASE)
_PAGE = 1000  # the most that S3 lists by one request
_AT_A_TIME = 16  # requests that wait for the store beside each other
_READABLE = 0o400
_SMALL = frozenset({".csv", ".json", ".tsv", ".txt", ".xml", ".yaml"})
"""Brought at once: tables, lists and annotations, of which a reader may want all."""

_ROOM = 2**31
"""Bytes of disk that stay free: what finds no room is read into memory each time."""

_LOST = f"{PARTIAL}lost"
"""In a run's folder here: the process that lost it to another machine, for its workers to see."""

_BEAT = 60.0
_LEASE = timedelta(minutes=20)
"""Longer than a clock may be wrong for S3 to take its requests (15 minutes)."""


def place_of(address: str) -> Path | None:
    """The place here of an address of a store; None for a path.

    Raises:
        WeaksegError: an address of another kind, or one that names no folder.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return None
    scheme, bucket, key = found[1].lower(), found[2], found[3]
    if scheme not in SCHEMES:
        raise WeaksegError(f"{address} is of {scheme}:, where a folder or s3://BUCKET/KEY is read.")
    parts = PurePosixPath(key).parts
    if not parts or ".." in (bucket, *parts) or bucket == ".":
        raise WeaksegError(f"{address} names no folder. Write s3://BUCKET/FOLDER.")
    if os.name == "nt":
        raise WeaksegError(f"{address}: stores need Linux or macOS. Copy the folder here.")
    return _cache() / scheme / bucket / Path(*parts)


def address_of(path: Path) -> str | None:
    """The address of a place here; None where it is of no store."""
    within = _within(path)
    return within and f"{within[0]}://{within[1]}/{within[2]}"


def named(text: str) -> str:
    """A text in which places are named by their addresses."""
    root = f"{_cache()}{os.sep}"
    return re.sub(rf"{re.escape(root)}({'|'.join(SCHEMES)})/", r"\1://", text)


def lay_out(place: Path) -> None:
    """Make the files of a place the same as the store's objects.

    What another process writes here meanwhile stays.

    Raises:
        WeaksegError: the store can't be reached, or refuses.
    """
    store, key = _store_of(place)
    begun = time.time_ns()
    seen, small = set[str](), list[Path]()
    with _naming(place):
        for page in store.list(key, chunk_size=_PAGE):
            for meta in page:
                parts = PurePosixPath(meta["path"][len(key) :].lstrip("/")).parts
                if not parts or parts[-1] == OWNER:
                    continue
                file = place.joinpath(*parts)
                seen.add(str(file))
                if not _same(file, meta) and _changed(file) < begun:
                    _stand_in(file, meta)
                if file.suffix.lower() in _SMALL and not _is_here(file):
                    small.append(file)
        if not seen and (meta := _head(store, key)):
            seen.add(str(place))
            if not _same(place, meta) and _changed(place) < begun:
                _stand_in(place, meta)
            small = [place] if not _is_here(place) else []
    emptied = set[Path]()
    for folder, _, names in os.walk(place, topdown=False):
        for name in names:
            other = f"{folder}{os.sep}{name}"
            if other in seen or name == OWNER or name.startswith(PARTIAL):
                continue
            if _changed(Path(other)) < begun:
                Path(other).unlink(missing_ok=True)
                emptied.add(Path(folder))
        if Path(folder) in emptied:  # a store has no folders
            with suppress(OSError):
                Path(folder).rmdir()
                emptied.add(Path(folder).parent)
    _all(bring, small)


def is_here(path: Path) -> bool:
    """Whether a file has its content here."""
    return _within(path) is None or _is_here(path)


def is_stand_in(path: Path) -> bool:
    """Whether a file is in its store, and has no content here."""
    return not is_here(path) and path.is_file()


def bring(path: Path) -> None:
    """Have a file that is about to be read here with its content, if there is any.

    It need not be laid out: a worker on another machine has paths alone.

    Raises:
        WeaksegError: the store can't be reached, or refuses.
    """
    if is_here(path) or (found := _get(path)) is None:
        return
    content, modified = found
    with _partial(path) as temporary:
        temporary.write_bytes(content)
        _set_time(temporary, modified)


def source(path: Path) -> Path | io.BytesIO:
    """What a file is read from: itself, or its content where the disk has no room for it.

    Raises:
        WeaksegError: the store can't be reached, or refuses.
    """
    if is_here(path):
        return path
    (root := _cache()).mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(root).free < _ROOM and (found := _get(path)):
        return io.BytesIO(found[0])
    bring(path)
    return path


def put(file: Path, path: Path) -> None:
    """Put a file, or all files of a folder, that will be at a place, if that is of a store.

    Before it is there: so a file here is never newer than its object.

    Raises:
        WeaksegError: the store can't be reached, or refuses, or the folder was lost (`owned`).
    """
    if _within(path) is None:
        return
    _check_not_lost(path)
    if file.is_dir():
        _all(
            lambda inner: put(inner, path / inner.relative_to(file)),
            [inner for inner in file.rglob("*") if inner.is_file()],
        )
        return
    store, key = _store_of(path)
    with _naming(path):
        store.put(key, file.read_bytes(), use_multipart=False)


def remove(path: Path) -> None:
    """Remove a file that was removed here, or all of a folder, if it is of a store.

    Raises:
        WeaksegError: the store can't be reached, or refuses, or the folder was lost (`owned`).
    """
    if _within(path) is None:
        return
    _check_not_lost(path)
    store, key = _store_of(path)
    with _naming(path):
        if _head(store, key):
            store.delete(key)
        for page in store.list(key, chunk_size=_PAGE):
            store.delete([meta["path"] for meta in page])


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the one that writes into a folder, if it is of a store, and have its files laid out.

    An object `run.lock`, made on condition that there is none and renewed each minute, says who it
    is. That of a process that has died counts no longer: at once on its own machine, and after
    20 minutes elsewhere. Once a renewal shows that another has it, this process and its workers on
    this machine write nothing more into it.

    Raises:
        WeaksegError: another process has it, or took it over, or the store can't be reached.
    """
    if _within(folder) is None:
        yield
        return
    with _naming(folder):
        owner = _Owner(folder)
        owner.take()
    try:
        lay_out(folder)
        yield
    finally:
        owner.leave()
    if owner.lost:
        raise _taken_over(folder)


class _Owner:
    """The object that says who writes into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store, self._key = _store_of(folder / OWNER)
        self._said = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "id": uuid.uuid4().hex,
        }
        self._beats = 0
        self._tag: str | None = None
        self.lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        from obstore.exceptions import AlreadyExistsError

        try:
            self._put("create")
        except AlreadyExistsError:
            self._take_over()
        (self._folder / _LOST).unlink(missing_ok=True)
        self._thread.start()

    def leave(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._tag and not self.lost:
            with suppress(Exception):  # else it ends as that of a process that has died
                if self._is_renewed():
                    self._store.delete(self._key)
                else:
                    self._lose()

    def _take_over(self) -> None:
        from obstore.exceptions import PreconditionError

        try:
            found = self._store.get(self._key)
        except FileNotFoundError:  # its owner has just left
            self._put("create")
            return
        meta, known = found.meta, _owner_in(found)
        if known.get("id") == self._said["id"]:  # a request was answered by an error, and done
            self._tag = meta["e_tag"]
            return
        here = known.get("host") == self._said["host"]
        if known and (_runs(known["pid"]) if here else _age(meta) < _LEASE):
            raise self._in_use(known)
        try:
            self._put({"e_tag": meta["e_tag"]})
        except PreconditionError:
            raise self._in_use(_owner_in(self._store.get(self._key))) from None

    def _in_use(self, known: dict[str, Any]) -> WeaksegError:
        folder = address_of(self._folder)
        who = (
            f"process {known['pid']} on {known['host']}, since {known['since']}"
            if known
            else "just begun"
        )
        return WeaksegError(
            f"{folder} is in use by another run ({who}). Wait for it, or choose another folder; if"
            f" it has died, remove {folder}/{OWNER}."
        )

    def _put(self, mode: Any) -> None:
        self._beats += 1
        content = json.dumps({**self._said, "beats": self._beats}).encode()
        self._tag = self._store.put(self._key, content, mode=mode, use_multipart=False)["e_tag"]

    def _renew(self) -> None:
        from obstore.exceptions import BaseError

        while not self._ended.wait(_BEAT):
            with suppress(BaseError):  # the next beat may reach it
                if not self._is_renewed():
                    self._lose()
                    return

    def _is_renewed(self) -> bool:
        from obstore.exceptions import NotFoundError, PreconditionError

        try:
            self._put({"e_tag": self._tag})
        except (NotFoundError, PreconditionError):  # which of them where there is none, varies
            try:
                found = self._store.get(self._key)
            except FileNotFoundError:
                return False
            if _owner_in(found).get("id") != self._said["id"]:
                return False
            self._tag = found.meta["e_tag"]  # a request was answered by an error, and done
        return True

    def _lose(self) -> None:
        self.lost = True
        # Without room for it, what was lost is said at the end.
        with suppress(OSError, WeaksegError), _partial(self._folder / _LOST) as temporary:
            temporary.write_text(str(os.getpid()))


def _owner_in(found: Any) -> dict[str, Any]:
    """What a lock says; nothing where it is no store's: that of a local run is an empty file."""
    try:
        known = json.loads(bytes(found.bytes()))
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(known, dict) and {"id", "pid", "host", "since"} <= known.keys()
    return known if whole and isinstance(known["pid"], int) else {}


def _check_not_lost(path: Path) -> None:
    for folder in path.parents:
        try:
            process = int((folder / _LOST).read_text())
        except (OSError, ValueError):  # there is none, or a power cut has left it empty
            continue
        if _runs(process):
            raise _taken_over(folder)


def _taken_over(folder: Path) -> WeaksegError:
    return WeaksegError(
        f"{address_of(folder)} was taken over by another run, for this one could not reach the"
        " store for too long. Wait for that, and start again."
    )


def _cache() -> Path:
    known = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME")
    root = Path(known or "~/.cache").expanduser().absolute()
    return root if os.environ.get(CACHE) else root / "weakseg"


def _within(path: Path) -> tuple[str, str, str] | None:
    """Scheme, bucket and key of a place here; None where it is of no store, or not whole yet."""
    text, root = os.fspath(path), _root(os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME"))
    if not text.startswith(root):
        return None
    scheme, _, rest = text[len(root) :].replace(os.sep, "/").partition("/")
    bucket, _, key = rest.partition("/")
    return (
        (scheme, bucket, key) if scheme in SCHEMES and key and f"/{PARTIAL}" not in rest else None
    )


@cache
def _root(*_: str | None) -> str:
    return f"{_cache()}{os.sep}"


def _store_of(path: Path) -> tuple[Any, str]:
    within = _within(path)
    assert within is not None
    scheme, bucket, key = within
    return _open(f"{scheme}://{bucket}", os.getpid()), key


@cache
def _open(address: str, process: int) -> Any:
    """A bucket; a process that was forked opens its own."""
    from obstore.store import from_url

    server = next((os.environ[n] for n in _SERVERS if os.environ.get(n)), "")
    options: Any = {"allow_http": True} if server.startswith("http:") else {}
    return from_url(address, client_options=options)


_SERVERS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def _head(store: Any, key: str) -> Any:
    try:
        return store.head(key)
    except FileNotFoundError:
        return None


def _get(path: Path) -> tuple[bytes, int] | None:
    """Content and time of an object; None if there is none."""
    store, key = _store_of(path)
    with _naming(path):
        try:
            found = store.get(key)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _time_of(found.meta)


def _is_here(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & _READABLE)
    except OSError:
        return False


def _changed(path: Path) -> int:
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def _time_of(meta: Any) -> int:
    modified: datetime = meta["last_modified"]
    return (modified - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _age(meta: Any) -> timedelta:
    age: timedelta = datetime.now(UTC) - meta["last_modified"]
    return age


def _same(file: Path, meta: Any) -> bool:
    """Whether a file is an object, by size and time; or by content, if it was put from here."""
    try:
        status = file.stat()
    except OSError:
        return False
    if status.st_size != meta["size"] or not file.is_file():
        return False
    if status.st_mtime_ns == _time_of(meta):
        return True
    tag = (meta["e_tag"] or "").strip('"')
    if (
        not _is_here(file)
        or hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != tag
    ):
        return False
    _set_time(file, _time_of(meta))
    return True


def _stand_in(file: Path, meta: Any) -> None:
    with _partial(file) as temporary:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o200)
        try:
            os.ftruncate(descriptor, meta["size"])
        finally:
            os.close(descriptor)
        _set_time(temporary, _time_of(meta))


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A path that takes the name of `path` when the block ends well."""
    folder = path.parent
    temporary = folder / f"{PARTIAL}{os.getpid()}-{threading.get_ident()}"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise WeaksegError(
            f"Can't write {path}: {error.strerror}. {CACHE} names the folder for files of stores."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _set_time(path: Path, modified: int) -> None:
    os.utime(path, ns=(modified, modified))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _all(function: Callable[[Path], None], paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for _ in pool.map(function, paths):
            pass


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        reason = shortened(str(error).partition("Debug source")[0], 300)
        raise WeaksegError(
            f"{address_of(path)} can't be used: {reason} Look at the address, at AWS_ENDPOINT_URL"
            " and at the credentials."
        ) from error
