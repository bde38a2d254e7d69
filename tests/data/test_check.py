import io
import os
import threading
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from weakseg.data import check
from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import write_mask
from weakseg.errors import WeaksegError
from weakseg.progress import LineProgress


class Folder(Protocol):
    def __call__(self, names: list[str], *content: object) -> Path: ...


def photos(count: int) -> list[str]:
    return [f"{i}.png" for i in range(1, count + 1)]


def test_sound_folder(tagged_folder: Folder) -> None:
    root = tagged_folder(
        photos(3), "image,tags\n1,cat dog\n2,cat\n3,\n", {"splits/train.txt": "1\n2\n"}
    )
    write_mask(root / "masks" / "1.png", np.array([[0, 1, 2, 255]] * 3, np.uint8))
    report = check_dataset(root)
    assert report.usable
    assert (report.format, report.classes) == ("tagged-folder", ("cat", "dog"))
    assert (report.images, report.tagged, report.masks, report.trainable) == (3, 3, 1, 2)
    assert list(report.images_per_tag.items()) == [("cat", 2), ("dog", 1)]
    assert list(report.images_per_number_of_tags.items()) == [(0, 1), (1, 1), (2, 1)]
    assert [(s.name, s.images) for s in report.splits] == [("train", 2)]
    assert list(report.lines())[:8] == [
        f"{root}: tagged-folder, usable",
        "3 photos, 3 tagged, 1 with a mask",
        "tags.csv: tags separated by spaces",
        "split train: 2 images",
        "photos by number of tags: 0: 1, 1: 1, 2: 1",
        "photos by tag:",
        "  cat       2",
        "  dog       1",
    ]


def test_everything_that_can_be_lived_with(tagged_folder: Folder) -> None:
    root = tagged_folder(
        photos(9),
        "image,tags\n1,aeroplane\n2,aeroplane\n3,aeroplane\n4,aeroplane\n5,aeroplan\n"
        "6,bird\n6,bird\n7,bird\n7,boat\n10,boat\n",
        {"splits/val.txt": "1\n11\n..\n", "images/notes.TXT": "-", "images/a.heic": "-"},
    )
    (root / "images" / "2.png").write_bytes(b"")
    (root / "images" / "9.png").write_bytes((root / "images" / "9.png").read_bytes()[:50])
    write_mask(root / "masks" / "1.png", np.zeros((4, 3), np.uint8))
    write_mask(root / "masks" / "3.png", np.array([[0, 4, 5, 255]] * 3, np.uint8))
    Image.new("RGB", (4, 3)).save(root / "masks" / "4.png")
    write_mask(root / "masks" / "5.png", np.full((3, 4), 4, np.uint8))

    report = check_dataset(root)

    assert report.usable
    assert (report.images, report.tagged, report.masks, report.trainable) == (9, 7, 4, 6)
    assert report.untagged == ("8", "9")
    assert report.missing == ("10",)
    assert (report.repeated, report.contradicting) == (("6",), ("7",))
    assert [str(n) for n in report.near_misses] == ["aeroplan (1) looks like aeroplane (4)"]
    assert set(report.unreadable) == {"2", "9"}
    assert "2.png can't be read: it is empty" in report.unreadable["2"]
    assert set(report.bad_masks) == {"1", "3", "4"}
    assert "has height and width (4, 3), its photo (3, 4)" in report.bad_masks["1"]
    assert "has the ids [5], where there are 4 classes" in report.bad_masks["3"]
    assert "mode RGB" in report.bad_masks["4"]
    assert dict(report.ignored) == {".heic": 1, ".txt": 1}
    (val,) = report.splits
    assert (val.images, val.missing, len(val.faults)) == (2, ("11",), 1)
    text = "\n".join(report.lines())
    for line in (
        "Photos that can't be read: 2",
        "Photos without tags: 2\n  8\n  9",
        "Tags without a photo: 1\n  10",
        "Rows that say the same again: 1\n  6",
        "Rows that differ, taken together: 1\n  7",
        "Tags to look at: 1\n  aeroplan (1) looks like aeroplane (4)",
        "Masks to look at: 3",
        "Images of split val without a photo: 1\n  11",
        "Lines of split val that can't be used: 1\n  val.txt line 3 names '..'",
        "Files that aren't taken for photos: 2\n  1 with suffix '.heic'",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("tags_csv", "texts"),
    [
        ("image,tags\n", {}),
        ("image,tags\n1,\n", {}),
        ("image,tags\n7,cat\n", {}),
        ("image,tags\n1,cat\n..,cat\n", {}),
        ("image,tags\n1,cat\n2,owl\n", {"classes.txt": "cat\n"}),
        ("image,tags\n1,background\n", {}),
    ],
)
def test_unusable_where_loading_fails(
    tagged_folder: Folder, tags_csv: str, texts: dict[str, str]
) -> None:
    root = tagged_folder(photos(2), tags_csv, texts)
    report = check_dataset(root)
    assert not report.usable
    assert next(report.lines()).endswith("NOT usable")
    with pytest.raises(WeaksegError):
        load_dataset(root)


def test_unusable_where_no_tagged_photo_can_be_read(tagged_folder: Folder) -> None:
    root = tagged_folder(photos(2), "image,tags\n1,cat\n2,\n")
    (root / "images" / "1.png").write_bytes(b"")
    assert not check_dataset(root).usable


def test_all_faults_are_reported_at_once(tagged_folder: Folder) -> None:
    root = tagged_folder(
        ["1.png", "1.jpg"],
        "image,tags\n1,cat,dog\n,cat\n1,owl\n1,cow\n",
        {"classes.txt": "cat\ncat\n"},
    )
    assert len(check_dataset(root).faults) == 6


def test_declared_classes_are_not_near_misses_of_each_other(tagged_folder: Folder) -> None:
    rows = "".join(f"{i},{'boat' if i < 9 else 'goat'}\n" for i in range(1, 11))
    root = tagged_folder(photos(10), "image,tags\n" + rows, {"classes.txt": "boat\ngoat\ncow\n"})
    report = check_dataset(root)
    assert report.near_misses == ()
    assert dict(report.images_per_tag) == {"boat": 8, "goat": 2, "cow": 0}


def test_masks_of_0_and_255_alone_are_told(tagged_folder: Folder) -> None:
    root = tagged_folder(photos(2), "image,tags\n1,cat\n2,cat\n")
    for name in ("1", "2"):
        write_mask(root / "masks" / f"{name}.png", np.array([[0, 0, 255, 255]] * 3, np.uint8))
    (note,) = check_dataset(root).notes
    assert note.startswith("The masks have the ids 0 and 255 (ignored) alone") and "255" in note
    write_mask(root / "masks" / "2.png", np.array([[0, 1, 1, 255]] * 3, np.uint8))
    assert check_dataset(root).notes == ()


def test_photos_whose_values_need_fewer_bits_than_they_have_are_told(
    tagged_folder: Folder,
) -> None:
    root = tagged_folder(photos(2), "image,tags\n1,cat\n2,cat\n")
    Image.fromarray(np.array([[0, 4000]], np.uint16)).save(root / "images" / "2.png")
    assert check_dataset(root).notes == (
        "1 photos in 16 bits have values of 12 bits, from which they are scaled, such as 2.",
    )


def test_long_lists_are_cut(tagged_folder: Folder) -> None:
    root = tagged_folder(photos(9), "image,tags\n1,cat\n")
    lines = list(check_dataset(root).lines())
    start = lines.index("Photos without tags: 8")
    assert lines[start + 1 : start + 7] == [*(f"  {i}" for i in range(2, 7)), "  and 3 more"]


def test_all_tags_to_look_at_are_listed(tagged_folder: Folder) -> None:
    words = [f"{letter * 9}ing" for letter in "abcdefgh"]
    rows = [f"1,{';'.join(words)}", f"2,{';'.join(words)}", f"3,{';'.join(f'{w}s' for w in words)}"]
    report = check_dataset(tagged_folder(photos(3), "\n".join(["image,tags", *rows])))
    lines = list(report.lines())
    last = lines[lines.index("Tags to look at: 8") + 8]
    assert last == "  hhhhhhhhhings (1) looks like hhhhhhhhhing (2)"


@pytest.mark.parametrize(
    ("tags_csv", "broken", "reason"),
    [
        ("image,tags\n", [], "None of its 2 images is a photo that is tagged. Tag some."),
        ("image,tags\n1,\n2,\n", [], "None of the 2 photos that are tagged has a tag. Tag some."),
        ("image,tags\nDSC1,cat\n", [], "The tags are of 1 images such as 'DSC1', the photos are"),
        ("image,tags\n1,cat\n2,\n", ["1.png"], "None of the photos that have a tag can be read"),
    ],
)
def test_what_is_not_usable_has_a_reason(
    tagged_folder: Folder, tags_csv: str, broken: list[str], reason: str
) -> None:
    root = tagged_folder(photos(2), tags_csv, {"classes.txt": "cat\n"})
    for name in broken:
        (root / "images" / name).write_bytes(b"")
    report = check_dataset(root)
    assert not report.usable
    (fault,) = report.faults
    assert fault.startswith(reason)
    lines = list(report.lines())
    assert lines[lines.index("What keeps it from being used: 1") + 1] == f"  {fault}"


def test_progress_ends_at_all_photos(tagged_folder: Folder) -> None:
    root = tagged_folder(photos(3), "image,tags\n1,cat\n")
    shown = io.StringIO()
    check_dataset(root, track=LineProgress(shown).track)
    assert shown.getvalue().startswith("check: 3/3, ")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="There is no folder"):
        check_dataset(tmp_path / "nowhere")


def test_photos_decoded_at_a_time_are_bounded_whatever_the_cores(
    tagged_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, bound = 40, 2
    root = tagged_folder(photos(count), "image,tags\n1,cat\n")
    huge = 300, 400
    for name in photos(count):
        Image.new("RGB", huge).save(root / "images" / name)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(check, "MAX_PIXELS", bound * huge[0] * huge[1])
    lock, now, most = threading.Lock(), 0, 0

    def counted(path: Path) -> np.ndarray:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return read_photo(path)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(check, "read_photo", counted)
    assert check_dataset(root).images == count
    assert 1 <= most <= bound
