import errno
import os
from pathlib import Path

import pytest

from weakseg.errors import WeaksegError
from weakseg.files import (
    absolute,
    read_entries,
    read_json,
    remove_partial_files,
    stamp,
    stamps,
    sync_files,
    write_atomically,
    write_bytes,
    write_entries,
    write_folder,
    write_json,
    written_by_run,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(KeyError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    with write_atomically(tmp_path / "a.png") as temporary:
        temporary.touch()
        (tmp_path / "b.png").touch()
        remove_partial_files(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
        temporary.touch()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_user(tmp_path: Path) -> None:
    with (
        pytest.raises(WeaksegError, match=r"a\.txt.*No space left"),
        write_atomically(tmp_path / "a.txt"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
        full.flush()


@pytest.mark.parametrize("place", ["file/a.txt", "file/deep/a.txt"])
def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeaksegError) as caught:
        write_json(tmp_path / place, 1)
    said = str(caught.value)
    assert said.startswith(f"Can't write {tmp_path / place}: {tmp_path / 'file'} is a file, where")
    assert ".partial" not in said and "space" not in said


def test_a_folder_where_a_file_is_needed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt" / "kept").mkdir(parents=True)
    with pytest.raises(WeaksegError, match="Is a directory") as caught:
        write_json(tmp_path / "a.txt", 1)
    assert ".partial" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "Choose another"), (errno.ENOSPC, "Free some space")]
)
def test_the_systems_reason_and_its_remedy_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(WeaksegError, match=remedy) as caught:
        write_json(tmp_path / "a.txt", 1)
    assert os.strerror(number) in str(caught.value) and ".partial" not in str(caught.value)


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def named(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", named)
    with write_atomically(tmp_path / "a.txt", durable=True) as temporary:
        temporary.write_text("new")
    assert events == ["fsync", "rename"]
    events.clear()
    write_bytes(tmp_path / "deep" / "b.bin", b"x")
    write_bytes(tmp_path / "deep" / "c.bin", b"x")
    assert events == ["rename"] * 2
    events.clear()
    sync_files([tmp_path / "deep" / "b.bin", tmp_path / "deep" / "c.bin"])
    assert events == ["fsync"] * 4  # both, their folder, and its place in its own


def test_paths_are_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert absolute("~/a::b") == tmp_path / "home" / "a::b"
    assert absolute("a/~/b") == tmp_path / "a" / "~" / "b"
    assert absolute(tmp_path) == tmp_path
    with pytest.raises(WeaksegError, match="~nobody-of-that-name/x"):
        absolute("~nobody-of-that-name/x")


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": 1})
    assert read_json(tmp_path / "a.json") == {"ä": 1}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(WeaksegError, match="can't be read as JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(WeaksegError, match="There is no file"):
        read_json(tmp_path / "b.json")


def test_a_folder_that_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-1").mkdir()
    (tmp_path / ".partial-1" / "a.png").touch()
    remove_partial_files(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "a.json"
    os.mkfifo(pipe)
    with pytest.raises(WeaksegError, match=r"a\.json is no regular file\. Replace"):
        read_json(pipe)
    with pytest.raises(WeaksegError, match="no regular file"), written_by_run(pipe):
        raise AssertionError("it was opened")


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.png"
    write_bytes(path, b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WeaksegError, match=r"Can't write .*a\.png: File too large\."):
            write_bytes(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_stamps_are_of_every_file_once_whatever_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    assert dict(stamps(tmp_path)) == {
        name: stamp(tmp_path / name) for name in ("x", "a/y", "a/b/z")
    }
    assert dict(stamps(tmp_path / "x")) == {"x": stamp(tmp_path / "x")}
    assert not dict(stamps(tmp_path / "none"))
    with pytest.raises(WeaksegError, match="none can't be read"):
        stamp(tmp_path / "none")


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = tmp_path / "out", Path.rename
    with write_folder(place) as folder:
        (folder / "x").write_text("old")

    def full(path: Path, target: Path) -> Path:
        if target == place and (path / "new").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(WeaksegError, match="out"), write_folder(place) as folder:
        (folder / "new").write_text("new")
    assert (place / "x").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("under", ["", "photos"])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_entries_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, under: str
) -> None:
    path, entries = tmp_path / "a.json", [(f'"ö{n}', [n, {"a": n}]) for n in range(number)]
    beside = {"step": "crf"} if under else {}
    write_entries(path, entries, under=under, beside=beside)
    monkeypatch.setattr("weakseg.files._AT_A_TIME", 2)
    outer, found = read_entries(path, under)
    assert (outer, list(found)) == ({**beside, under: {}} if under else {}, entries)
    write_json(path, {**beside, under: dict(entries)} if under else dict(entries))
    assert list(read_entries(path, under)[1]) == entries


def test_entries_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_entries(path, [("a", 1), ("b", 2)])
    path.write_text(path.read_text().removesuffix("}\n"))
    with pytest.raises(WeaksegError, match=r"a\.json can't be read: it has no end\."):
        list(read_entries(path)[1])
    with pytest.raises(WeaksegError, match="There is no file"):
        read_entries(tmp_path / "none.json")
