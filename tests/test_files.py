from pathlib import Path

import pytest

from weakseg.errors import WeaksegError
from weakseg.files import read_json, remove_partial_files, write_atomically, write_json


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


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": 1})
    assert read_json(tmp_path / "a.json") == {"ä": 1}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(WeaksegError, match="can't be read as JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(WeaksegError, match="There is no file"):
        read_json(tmp_path / "b.json")
