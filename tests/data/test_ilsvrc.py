from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.formats import find_format
from weakseg.data.masks import MaskFile, write_mask
from weakseg.errors import WeaksegError

DOG, PERSON, FOX = "n02084071", "n00007846", "n02118333"
MAP = f"{DOG} 1 dog\n{FOX} 2 fox\n{PERSON} 3 a person\n"

PHOTOS = [
    f"Data/DET/train/ILSVRC2013_train/{DOG}/{DOG}_1.JPEG",
    f"Data/DET/train/ILSVRC2013_train/{PERSON}/{PERSON}_24.JPEG",
    "Data/DET/train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000001.JPEG",
    "Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000005.JPEG",
    "Data/DET/val/ILSVRC2012_val_00000001.JPEG",
]


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


def annotation(*names: str) -> str:
    return "".join(
        ["<annotation>", *(f"<object><name>{n}</name></object>" for n in names), "</annotation>"]
    )


ANNOTATIONS = {
    f"Annotations/DET/train/ILSVRC2013_train/{DOG}/{DOG}_1.xml": annotation(DOG, PERSON, DOG),
    f"Annotations/DET/train/ILSVRC2013_train/{PERSON}/{PERSON}_24.xml": annotation(PERSON),
    "Annotations/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000005.xml": annotation(),
    "Annotations/DET/val/ILSVRC2012_val_00000001.xml": annotation(FOX),
}
LISTS = {
    "ImageSets/DET/train.txt": (
        f"ILSVRC2013_train/{PERSON}/{PERSON}_24 1\n"
        f"ILSVRC2013_train/{DOG}/{DOG}_1 2\n"
        "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001 3\n"
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000005 4\n"
    ),
    "ImageSets/DET/val.txt": "ILSVRC2012_val_00000001 1\n",
    "ImageSets/DET/train_1.txt": f"ILSVRC2013_train/{DOG}/{DOG}_1 1\n",
}


@pytest.fixture
def root(any_folder: Folder) -> Path:
    return any_folder(PHOTOS, {**ANNOTATIONS, **LISTS, "map_det.txt": MAP})


def test_train_and_val(root: Path) -> None:
    train, val = (load_dataset(root, split) for split in ("train", "val"))
    assert train.format == "ilsvrc"
    assert train.classes == val.classes == ("dog", "fox", "a person")
    assert [(s.id, s.tags) for s in train.samples] == [
        (f"{PERSON}_24", ("a person",)),
        (f"{DOG}_1", ("dog", "a person")),
        ("ILSVRC2014_train_00000005", ()),
    ]
    assert train.samples[1].image == root / PHOTOS[0]
    assert train.untagged == ("ILSVRC2013_train_00000001",)
    assert [(s.id, s.tags) for s in val.samples] == [("ILSVRC2012_val_00000001", ("fox",))]


def test_lists_of_one_class_are_no_splits(root: Path) -> None:
    assert [s.name for s in check_dataset(root).splits] == ["train", "val"]


def test_map_of_the_devkit(root: Path) -> None:
    (root / "devkit" / "data").mkdir(parents=True)
    (root / "map_det.txt").rename(root / "devkit" / "data" / "map_det.txt")
    assert load_dataset(root).classes == ("dog", "fox", "a person")


@pytest.mark.parametrize(
    ("classes_txt", "classes"),
    [(None, (PERSON, DOG, FOX)), (f"{FOX}\n{PERSON}\n{DOG}\n", (FOX, PERSON, DOG))],
)
def test_wordnet_ids_without_a_map(
    root: Path, classes_txt: str | None, classes: tuple[str, ...]
) -> None:
    (root / "map_det.txt").unlink()
    if classes_txt:
        (root / "classes.txt").write_text(classes_txt)
    dataset = load_dataset(root)
    assert dataset.classes == classes
    assert {t for s in dataset.samples for t in s.tags} == set(classes)


@pytest.mark.parametrize("line", [DOG, f"{DOG} 2 dog", f"{DOG} dog", f"{DOG} x dog"])
def test_broken_map(root: Path, line: str) -> None:
    (root / "map_det.txt").write_text(f"{line}\n")
    with pytest.raises(WeaksegError, match=r"map_det.txt line 1 is '.*where 1 is expected"):
        load_dataset(root)


def test_tags_csv_takes_the_place_of_the_annotations(root: Path) -> None:
    (root / "tags.csv").write_text(f"image,tags\n{DOG}_1,{FOX};a person\n")
    (sample,) = load_dataset(root).samples
    assert (sample.id, sample.tags) == (f"{DOG}_1", ("fox", "a person"))


@pytest.mark.parametrize("folder", ["masks", "LID_track1_annotations/track1_val_annotations_raw"])
def test_masks(root: Path, folder: str) -> None:
    path = root / folder / "ILSVRC2012_val_00000001.png"
    write_mask(path, np.full((3, 4), 3, np.uint8))
    assert [s.mask for s in load_dataset(root, "val").samples] == [MaskFile.of(path)]
    assert check_dataset(root).bad_masks == {}


def test_one_name_in_two_folders(any_folder: Folder) -> None:
    twin = "Data/DET/val/ILSVRC2014_train_00000005.JPEG"
    report = check_dataset(any_folder([*PHOTOS, twin], {**ANNOTATIONS, **LISTS}))
    (fault,) = report.faults
    assert "holds both" in fault
    assert "'train/ILSVRC2014_train_0000/ILSVRC2014_train_00000005.JPEG'" in fault


def test_a_split_names_no_files_elsewhere(root: Path) -> None:
    (root / "ImageSets" / "DET" / "own.txt").write_text("../../../etc/.. 1\n../../passwd 2\n")
    (own,) = (s for s in check_dataset(root).splits if s.name == "own")
    assert (own.images, own.missing) == (1, ("passwd",))
    assert "names '..', which is a path" in own.faults[0]


def test_no_tags_at_all(any_folder: Folder) -> None:
    with pytest.raises(WeaksegError, match=r"Add tags.csv or Annotations/DET/ID.xml"):
        load_dataset(any_folder(PHOTOS))


def test_folder_above_is_pointed_down(root: Path) -> None:
    with pytest.raises(WeaksegError, match=r"Did you mean .*set\?"):
        find_format(root.parent, "auto")
