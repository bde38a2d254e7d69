import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.formats import coco
from weakseg.data.masks import write_mask
from weakseg.errors import WeaksegError


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "cow"}]


def instances(files: dict[int, str], pairs: list[tuple[int, int]], **changes: Any) -> str:
    """A file with an annotation for each (image, category)."""
    content = {
        "info": {"year": 2017},
        "images": [{"id": k, "file_name": n, "width": 4, "height": 3} for k, n in files.items()],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "iscrowd": number % 2,
                "segmentation": {"counts": [2, 3], "size": [3, 4]} if number % 2 else [[0.5, 1]],
            }
            for number, (image, category) in enumerate(pairs)
        ],
        "categories": CATEGORIES,
    }
    return json.dumps({**content, **changes})


TRAIN = instances(
    {7: "000000000007.jpg", 9: "000000000009.jpg", 12: "000000000012.jpg", 13: "gone.jpg"},
    [(7, 1), (7, 1), (7, 18), (9, 1)],
)
VAL = instances({7: "000000000042.jpg"}, [(7, 18)])


@pytest.fixture
def root(any_folder: Folder) -> Path:
    photos = [f"train2017/{i:012}.jpg" for i in (7, 9, 12)] + ["val2017/000000000042.jpg"]
    return any_folder(
        [*photos, "test2017/000000000001.jpg"],
        {
            "annotations/instances_train2017.json": TRAIN,
            "annotations/instances_val2017.json": VAL,
            "annotations/captions_val2017.json": "{}",
        },
    )


def tags(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.tags for sample in dataset.samples}


def test_splits_and_tags(root: Path) -> None:
    train, val = (load_dataset(root, name) for name in ("train2017", "val2017"))
    assert train.format == "coco"
    assert train.classes == val.classes == ("person", "dog", "cow")
    assert tags(train) == {
        "000000000007": ("person", "dog"),
        "000000000009": ("person",),
        "000000000012": (),
    }
    assert train.samples[0].image == root / "train2017" / "000000000007.jpg"
    assert train.missing == ("gone",)
    assert tags(val) == {"000000000042": ("dog",)}
    assert len(load_dataset(root).samples) == 4
    assert [(s.name, s.images) for s in check_dataset(root).splits] == [
        ("train2017", 4),
        ("val2017", 1),
    ]


@pytest.mark.parametrize("file_name", ["1.jpg", "trip/1.jpg", "train2017/1.jpg"])
@pytest.mark.parametrize("place", ["images/1.jpg", "images/trip/1.jpg", "train2017/1.jpg"])
def test_where_photos_lie(any_folder: Folder, place: str, file_name: str) -> None:
    text = instances({1: file_name}, [(1, 1)])
    root = any_folder([place], {"annotations/instances_train2017.json": text})
    assert tags(load_dataset(root, "train2017")) == {"1": ("person",)}


def test_masks(root: Path) -> None:
    write_mask(root / "masks" / "000000000042.png", np.full((3, 4), 2, np.uint8))
    (sample,) = load_dataset(root, "val2017").samples
    assert sample.mask == root / "masks" / "000000000042.png"
    assert check_dataset(root).masks == 1


def test_a_file_is_parsed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(root)
    monkeypatch.setattr(coco, "_parse", lambda path: pytest.fail(f"{path} is read again"))
    load_dataset(root, "train2017")
    check_dataset(root)


def test_a_changed_file_is_parsed_again(root: Path) -> None:
    load_dataset(root)
    (root / "annotations" / "instances_val2017.json").write_text(
        instances({7: "000000000042.jpg"}, [(7, 18), (7, 90)])
    )
    assert tags(load_dataset(root, "val2017")) == {"000000000042": ("dog", "cow")}


def test_outlines_are_dropped_while_parsing(root: Path) -> None:
    parsed = coco._parse(root / "annotations" / "instances_train2017.json")
    assert parsed["annotations"][0] == {"id": 0, "image_id": 7, "category_id": 1}


def test_categories_that_differ(root: Path) -> None:
    (root / "annotations" / "instances_val2017.json").write_text(
        instances({}, [], categories=CATEGORIES[:2])
    )
    with pytest.raises(WeaksegError, match="have different categories"):
        load_dataset(root)


def test_no_folder_of_photos(any_folder: Folder) -> None:
    root = any_folder([], {"annotations/instances_own.json": VAL})
    with pytest.raises(WeaksegError, match="Put them into images/ or own/"):
        load_dataset(root)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"images": [{"id": 1}]}, "images[0] needs a file_name"),
        ({"images": [{"id": "1", "file_name": "1.jpg"}]}, "images[0] needs a file_name, and an id"),
        ({"images": [{"id": 1, "file_name": "1.jpg"}] * 2}, "images[1] needs a file_name, and an"),
        ({"images": [{"id": 1, "file_name": ["1.jpg"]}]}, "images[0] needs a file_name"),
        ({"images": [None]}, "images[0] needs a file_name"),
        ({"images": [{"id": 1, "file_name": ""}]}, "images[0] names no image"),
        ({"images": [{"id": 1, "file_name": "../../x/1.jpg"}]}, "may lie outside the folder"),
        ({"images": [{"id": 1, "file_name": "/etc/passwd"}]}, "may lie outside the folder"),
        ({"images": [{"id": 1, "file_name": "..\\1.jpg"}]}, "which is a path"),
        ({"images": [{"id": 1, "file_name": "\x1b[31m.jpg"}]}, "control characters"),
        ({"categories": [{"id": 1, "name": " "}]}, "categories[0] needs a name"),
        ({"categories": [{"id": 1, "name": "\x1b[31m"}]}, "categories[0] needs a name"),
        ({"categories": [{"id": 1.5, "name": "cow"}]}, "categories[0] needs a name"),
        ({"categories": [CATEGORIES[0], CATEGORIES[0]]}, "categories[1] needs a name, and an id"),
        ({"annotations": [{"image_id": 5, "category_id": 1}]}, "annotations[0] names no image"),
        ({"annotations": [{"image_id": 1, "category_id": 5}]}, "annotations[0] names no image"),
        ({"annotations": [{"image_id": [1], "category_id": 1}]}, "annotations[0] names no image"),
        ({"annotations": ["x"]}, "annotations[0] names no image"),
    ],
)
def test_entries_that_cannot_be_used(
    any_folder: Folder, changes: dict[str, Any], fault: str
) -> None:
    text = instances({1: "1.jpg"}, [], **changes)
    root = any_folder(["images/1.jpg"], {"annotations/instances_own.json": text})
    (found,) = check_dataset(root).faults
    assert found.startswith("instances_own.json ") and fault in found
    assert "\x1b" not in found
    with pytest.raises(WeaksegError):
        load_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "can't be read as JSON"),
        ("{", "can't be read as JSON"),
        ("[" * 100_000, "can't be read as JSON"),
        ("9" * 10_000, "can't be read as JSON"),
        ("[]", "has no lists images, annotations, categories"),
        ("{}", "has no lists"),
        (instances({}, [], images={}), "has no lists"),
    ],
)
def test_no_instances_file(any_folder: Folder, text: str, message: str) -> None:
    root = any_folder(["images/1.jpg"], {"annotations/instances_own.json": text})
    with pytest.raises(WeaksegError, match=message) as caught:
        load_dataset(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_file_that_names_no_folder_is_no_split(any_folder: Folder, name: str) -> None:
    root = any_folder(
        ["images/1.jpg", "../outside.jpg"],
        {f"annotations/instances_{name}.json": VAL, "tags.csv": "image,tags\n1,cow\n"},
    )
    assert load_dataset(root).format == "tagged-folder"
