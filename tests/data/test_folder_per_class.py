import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.formats import find_format
from weakseg.data.masks import MaskFile, write_mask
from weakseg.errors import WeaksegError


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


def tags(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.tags for sample in dataset.samples}


def test_folders_are_tags(any_folder: Folder) -> None:
    root = any_folder(["cat/001.jpg", "cat/002.png", "dining table/001.jpg", ".git/001.jpg"])
    dataset = load_dataset(root)
    assert dataset.format == "folder-per-class"
    assert dataset.classes == ("cat", "dining table")
    assert tags(dataset) == {
        "cat_001": ("cat",),
        "cat_002": ("cat",),
        "dining table_001": ("dining table",),
    }
    assert dataset.samples[0].image == root / "cat" / "001.jpg"


def test_copies_are_one_photo(any_folder: Folder) -> None:
    root = any_folder(["cat/1.png", "dog/1.png", "cow/2.png"])
    shutil.copy(root / "cat" / "1.png", root / "cow" / "1.png")
    shutil.copy(root / "cat" / "1.png", root / "dog" / "3.png")
    dataset = load_dataset(root)
    assert tags(dataset) == {
        "cat_1": ("cat", "cow"),
        "dog_1": ("dog",),
        "cow_2": ("cow",),
        "dog_3": ("dog",),
    }
    report = check_dataset(root)
    assert (report.images, report.repeated, report.contradicting) == (4, (), ())


def test_photos_of_nothing(any_folder: Folder) -> None:
    root = any_folder(["Background/1.jpg", "cat/1.jpg"])
    dataset = load_dataset(root)
    assert dataset.classes == ("cat",)
    assert tags(dataset) == {"Background_1": (), "cat_1": ("cat",)}


def test_what_lies_beside_the_classes(any_folder: Folder) -> None:
    root = any_folder(
        ["cat/1.jpg", "owl/1.jpg"],
        {"classes.txt": "owl\nemu\ncat\n", "splits/train.txt": "owl_1\n", "notes.txt": "-"},
    )
    write_mask(root / "masks" / "owl_1.png", np.ones((3, 4), np.uint8))
    dataset = load_dataset(root, "train")
    assert dataset.classes == ("owl", "emu", "cat")
    assert [(s.id, s.mask) for s in dataset.samples] == [
        ("owl_1", MaskFile.of(root / "masks" / "owl_1.png"))
    ]
    assert check_dataset(root).usable


def test_folder_that_is_no_class(any_folder: Folder) -> None:
    root = any_folder(["cat/1.jpg", "new/1.jpg"], {"classes.txt": "cat\n"})
    (fault,) = check_dataset(root).faults
    assert fault.startswith("new/ (image 'new_1'): Unknown tag 'new'.")


@pytest.mark.parametrize(
    ("photos", "fault"),
    [
        (["cat/1.jpg", "cat/1.png"], "cat/ holds both '1.jpg' and '1.png'"),
        (["a_b/c.png", "a/b_c.png"], "would both have the id 'a_b_c'; rename one of them"),
        (["a\\b/1.png"], "which is a path"),
        (["a\x1b/1.png"], "control characters"),
    ],
)
def test_ids_that_cannot_be(any_folder: Folder, photos: list[str], fault: str) -> None:
    (found,) = check_dataset(any_folder(photos), "folder-per-class").faults
    assert fault in found
    assert "\x1b" not in found


@pytest.mark.parametrize("photos", [[], ["masks/1.png"], [".git/1.png"], ["@eaDir/1.png"]])
def test_no_folder_of_photos(any_folder: Folder, photos: list[str]) -> None:
    with pytest.raises(WeaksegError, match="holds no data set"):
        find_format(any_folder(photos, {"notes/a.txt": "-"}), "auto")


def test_folders_of_splits_are_pointed_out(any_folder: Folder) -> None:
    root = any_folder(["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg"])
    with pytest.raises(WeaksegError, match=r"Did you mean .*set/train\?"):
        load_dataset(root)
