"""A run's folder has one owner at a time, and a record that is read with care."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tiny import Lines, Start
from weakseg.engine import record
from weakseg.engine.record import LOCK, RECORD, owned, write_record
from weakseg.errors import WeaksegError
from weakseg.stores import PARTIAL

OWNER = """
import os
import sys
from pathlib import Path
from typing import Any

from weakseg.progress import progress_for
from weakseg.engine.record import owned, write_record

folder = Path(sys.argv[1])
with owned(folder, progress_for()) as record:
    write_record(folder, record)
    if "fork" not in sys.argv:
        print("owned", flush=True)
    elif os.fork() == 0:
        print("owned", flush=True)  # by now a fork has let go of the lock
        os.read(int(sys.argv[3]), 1)
        os._exit(0)
    input()
"""


@contextmanager
def owner(
    folder: Path, *arguments: str, fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_a_second_run_is_told_who_has_the_folder(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with owner(out) as process:
        before = sorted(out.iterdir())
        with pytest.raises(WeaksegError) as caught:
            start(photos, out)
        said = str(caught.value)
        assert said.startswith(f"{out} is in use by another run (process {process.pid} on ")
        assert socket.gethostname() in said
        assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", said)
        assert sorted(out.iterdir()) == before
        process.communicate("\n")
        assert process.returncode == 0
    with owned(out, Lines()) as now:
        assert now.owner is not None and now.owner.pid == os.getpid()


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with owned(tmp_path, Lines()):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_a_fork_that_outlives_a_killed_owner_has_no_lock(tmp_path: Path) -> None:
    read, write = os.pipe()  # what data loaders are: forks, which notice only after seconds
    try:
        with owner(tmp_path, "fork", str(read), fds=(read,)) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with owned(tmp_path, Lines()):
                pass
    finally:
        os.close(write)
        os.close(read)


def test_one_process_has_no_two_runs_in_a_folder(tmp_path: Path) -> None:
    with (
        owned(tmp_path, Lines()) as first,
        pytest.raises(WeaksegError, match="in use by another run"),
    ):
        write_record(tmp_path, first)
        with owned(tmp_path, Lines()):
            pass


@pytest.mark.parametrize("laid_out", [False, True])
def test_a_run_that_has_no_record_yet_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laid_out: bool
) -> None:
    """Of a store's folder another process may be laying the files out."""
    acquire = FileLock.acquire

    def late(self: FileLock, **options: Any) -> object:
        if laid_out:
            (tmp_path / "recipe.yaml").touch()
        return acquire(self, **options)

    with FileLock(tmp_path / LOCK):
        monkeypatch.setattr(FileLock, "acquire", late)
        with pytest.raises(WeaksegError) as caught, owned(tmp_path, Lines()):
            pass
    assert str(caught.value) == (
        f"{tmp_path} is in use by another run (just begun). Wait for it, or choose another folder."
    )


def test_a_folder_with_nothing_but_a_lock_is_taken(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with owned(tmp_path, Lines()) as found:
        assert found.steps == {}


def test_a_run_that_was_killed_at_its_first_file_goes_on(tmp_path: Path) -> None:
    kill = "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
    killed = subprocess.run(
        [sys.executable, "-c", OWNER.replace("folder =", f"{kill}folder ="), str(tmp_path)],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert any(path.name.startswith(PARTIAL) for path in tmp_path.iterdir())
    with owned(tmp_path, Lines()) as found:
        assert found.steps == {}
    assert [path.name for path in tmp_path.iterdir()] in ([], [LOCK])


def test_partial_files_of_the_owner_are_left_alone(tmp_path: Path) -> None:
    with owner(tmp_path):
        partial = tmp_path / ".partial-0.json"
        partial.touch()
        with pytest.raises(WeaksegError, match="in use"), owned(tmp_path, Lines()):
            pass
        assert partial.exists()
    with owned(tmp_path, Lines()):
        assert not partial.exists()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: object, **_: object) -> None:
        raise OSError(next(iter(record._NO_LOCKS)), "no locks")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    lines = Lines()
    with owned(tmp_path, lines):
        pass
    assert len(lines.said) == 1 and "can't be locked" in lines.said[0]


STEP = {"fingerprint": "0", "finished": True, "seconds": 1.0}


@pytest.mark.parametrize(
    "content",
    [
        [],
        None,
        3,
        {},
        {"steps": []},
        {"steps": {"svm": None}},
        {"steps": {"svm": {}}},
        {"steps": {"svm": {**STEP, "finished": "perhaps"}}},
        {"steps": {"svm": {**STEP, "seconds": []}}},
        {"steps": {"svm": {**STEP, "digests": {"a": 1}}}},
        {"steps": {}, "owner": "me"},
        {"steps": {}, "data": 3},
        {"steps": {}, "version": ["x" * 10_000]},
    ],
)
def test_a_record_of_another_shape_is_one_line(tmp_path: Path, content: object) -> None:
    (tmp_path / RECORD).write_text(json.dumps(content))
    with (
        pytest.raises(WeaksegError, match=r"no record of a run \(") as caught,
        owned(tmp_path, Lines()),
    ):
        pass
    said = str(caught.value)
    assert str(tmp_path / RECORD) in said and "\n" not in said and len(said) < 400
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_run_of_an_older_weakseg_is_told_so(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps({"version": "0.1", "stages": {"svm": STEP}}))
    with (
        pytest.raises(WeaksegError, match=r"made by an older weakseg, .* another folder") as caught,
        owned(tmp_path, Lines()),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize("text", ["", "{", '{"steps": {', "[" * 100_000, "\0" * 20])
def test_a_record_that_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with (
        pytest.raises(WeaksegError, match="can't be read as JSON") as caught,
        owned(tmp_path, Lines()),
    ):
        pass
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("inner", ["", "deeper/out"])
def test_a_file_in_the_folders_place_is_named(tmp_path: Path, inner: str) -> None:
    (tmp_path / "thesis").write_text("text")
    with (
        pytest.raises(WeaksegError, match="thesis") as caught,
        owned(tmp_path / "thesis" / inner, Lines()),
    ):
        pass
    assert ".partial" not in str(caught.value)
    assert (tmp_path / "thesis").read_text() == "text"
