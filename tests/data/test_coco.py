import json
import pickle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.formats import coco_file
from weakseg.data.masks import MaskFile, UnreadableMask, write_mask
from weakseg.errors import WeaksegError


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


SQUARE = [[0, 0, 2, 0, 2, 2, 0, 2]]
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
                "segmentation": {"counts": [9, 3], "size": [3, 4]} if number % 2 else SQUARE,
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


def test_masks_in_files_take_the_place_of_outlines(root: Path) -> None:
    write_mask(root / "masks" / "000000000042.png", np.full((3, 4), 2, np.uint8))
    (sample,) = load_dataset(root, "val2017").samples
    assert sample.mask == MaskFile.of(root / "masks" / "000000000042.png")
    report = check_dataset(root)
    assert (report.masks, report.bad_masks) == (4, {})


def masks(dataset: Dataset) -> dict[str, list[list[int]] | None]:
    return {s.id: s.mask.read().tolist() if s.mask else None for s in dataset.samples}


def test_outlines_are_masks_of_classes_and_of_objects(root: Path) -> None:
    """Image 7 has squares of 1 and 18 and a crowd, image 9 a crowd."""
    train = load_dataset(root, "train2017")
    nothing = [[0] * 4] * 3
    assert masks(train) == {
        "000000000007": [[2, 2, 0, 255]] * 2 + [[0, 0, 0, 255]],
        "000000000009": [[0, 0, 0, 255]] * 3,
        "000000000012": nothing,
    }
    objects = [sample.objects.read().tolist() for sample in train.samples if sample.objects]
    assert objects == [[[2, 2, 0, 255]] * 2 + [[0, 0, 0, 255]], [[0, 0, 0, 255]] * 3, nothing]
    assert [s.mask.read().max() for s in load_dataset(root, "val2017").samples if s.mask] == [2]
    assert pickle.loads(pickle.dumps(train.samples[0])) == train.samples[0]


def test_the_smaller_region_lies_over_the_larger_and_all_over_crowds(any_folder: Folder) -> None:
    def square(category: int, side: int, crowd: int = 0) -> dict[str, Any]:
        corners = [0, 0, side, 0, side, side, 0, side]
        return {"image_id": 1, "category_id": category, "iscrowd": crowd, "segmentation": [corners]}

    shapes = [square(18, 1), square(1, 2), square(1, 1, crowd=1), square(90, 3), square(77, 4)]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 3, "width": 4}],
        "annotations": shapes,
        "categories": CATEGORIES,
    }
    root = any_folder(["images/1.jpg"], {"annotations/instances_own.json": json.dumps(content)})
    (sample,) = load_dataset(root).samples
    assert sample.mask and sample.objects
    assert sample.mask.read().tolist() == [[2, 1, 3, 255], [1, 1, 3, 255], [3, 3, 3, 255]]
    assert sample.objects.read().tolist() == [[1, 2, 3, 255], [2, 2, 3, 255], [3, 3, 3, 255]]


@pytest.mark.parametrize(
    ("image", "annotation", "fault"),
    [
        ({}, {"segmentation": {"counts": [5], "size": [3, 4]}}, "annotation 0: run lengths do not"),
        ({}, {"segmentation": [[0, 0, 1e9, 0, 1, 1]]}, "annotation 0: a polygon reaches far out"),
        ({"height": 5}, {}, "has height and width (5, 4), its photo (3, 4)"),
        ({"height": 10**6, "width": 10**6}, {}, "has more than 89,478,485 pixels"),
    ],
)
def test_outlines_that_cannot_be_used_are_named(
    any_folder: Folder, image: dict[str, Any], annotation: dict[str, Any], fault: str
) -> None:
    content = json.loads(instances({1: "1.jpg"}, [(1, 1)]))
    content["images"][0] |= image
    content["annotations"][0] |= annotation
    root = any_folder(["images/1.jpg"], {"annotations/instances_own.json": json.dumps(content)})
    report = check_dataset(root)
    assert report.usable and report.masks == 1
    assert fault in report.bad_masks["1"]
    assert f"{root / 'annotations/instances_own.json'} (image 1)" in report.bad_masks["1"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"height": None}, "has 1 images without width and height, which get no mask, such as"),
        ({"segmentation": []}, "has 1 images with objects without outlines, which get no mask"),
        ({"file_name": "2.jpg"}, "has 2 images with a file_name of others, which get no mask"),
    ],
)
def test_images_without_a_sure_mask_have_none(
    any_folder: Folder, changes: dict[str, Any], note: str
) -> None:
    content = json.loads(instances({1: "1.jpg", 2: "2.jpg"}, [(1, 1), (1, 1), (2, 1)]))
    content["images"][0] |= {k: v for k, v in changes.items() if k != "segmentation"}
    content["annotations"][0] |= {k: v for k, v in changes.items() if k == "segmentation"}
    files = {"annotations/instances_own.json": json.dumps(content)}
    root = any_folder(["images/1.jpg", "images/2.jpg"], files)
    report = check_dataset(root)
    assert report.masks == (0 if "file_name" in changes else 1)
    assert any(note in line for line in report.notes), report.notes


def test_a_file_that_changes_while_it_is_used_is_not_misread(root: Path) -> None:
    (sample,) = load_dataset(root, "val2017").samples
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(" " + path.read_text())
    assert sample.mask
    with pytest.raises(UnreadableMask, match="was changed while it was in use"):
        sample.mask.read()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_outlines_are_found_behind_letters_of_several_bytes(any_folder: Folder, mark: str) -> None:
    content = json.loads(instances({1: "größe-猫🐈.jpg"}, [(1, 1), (1, 18)]))
    content["annotations"][0]["segmentation"] = [[3, 0, 4, 0, 4, 3, 3, 3]]
    content["annotations"][0]["note"] = "猫" * 5
    content["annotations"][1] |= {"segmentation": SQUARE, "iscrowd": 0}
    text = mark + json.dumps(content, ensure_ascii=False, indent=1)
    root = any_folder(["images/größe-猫🐈.jpg"], {"annotations/instances_own.json": text})
    assert list(masks(load_dataset(root)).values()) == [[[2, 2, 0, 1]] * 2 + [[0, 0, 0, 1]]]


def test_a_file_is_parsed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(root)
    monkeypatch.setattr(coco_file, "_read_lists", lambda path: pytest.fail(f"{path} is read again"))
    load_dataset(root, "train2017")
    check_dataset(root)


def test_a_changed_file_is_parsed_again(root: Path) -> None:
    load_dataset(root)
    (root / "annotations" / "instances_val2017.json").write_text(
        instances({7: "000000000042.jpg"}, [(7, 18), (7, 90)])
    )
    assert tags(load_dataset(root, "val2017")) == {"000000000042": ("dog", "cow")}


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


STRAY_IMAGE = {"id": 5, "file_name": "5.jpg"}
ALONE = {"image_id": 7, "category_id": 1, "segmentation": SQUARE}


@pytest.mark.parametrize(
    ("name", "stray", "note"),
    [
        ("images", {"id": 1}, "1 images without a file_name that can be a photo's"),
        ("images", {"id": 1, "file_name": ["1.jpg"]}, "without a file_name"),
        ("images", {"id": 1, "file_name": ""}, "without a file_name"),
        ("images", {"id": 1, "file_name": "a/.."}, "without a file_name"),
        ("images", {"id": 1, "file_name": "\x1b[31m.jpg"}, "without a file_name"),
        ("images", {"id": "7", "file_name": "1.jpg"}, "1 images without an id of their own"),
        ("images", {"id": 1.5, "file_name": "1.jpg"}, "without an id of their own"),
        ("images", {"id": True, "file_name": "1.jpg"}, "without an id of their own"),
        ("images", None, "without an id of their own"),
        ("categories", {"id": 1, "name": "cat"}, "1 categories without a name and an id of their"),
        ("categories", {"id": 3, "name": " "}, "without a name"),
        ("categories", {"id": 3, "name": None}, "without a name"),
        ("categories", {"id": 3, "name": "\x1b[31m"}, "without a name"),
        ("categories", {"id": None, "name": "emu"}, "without a name and an id"),
        ("categories", None, "without a name"),
        ("annotations", ALONE | {"image_id": 5}, "1 annotations that name no image and category"),
        ("annotations", ALONE | {"category_id": 5}, "that name no image and category"),
        ("annotations", ALONE | {"category_id": None}, "that name no image and category"),
        ("annotations", ALONE | {"image_id": [7]}, "that name no image and category"),
        ("annotations", "x", "that name no image and category"),
    ],
)
def test_a_stray_entry_is_counted_and_the_rest_is_used(
    any_folder: Folder, name: str, stray: Any, note: str
) -> None:
    content = json.loads(instances({7: "7.jpg"}, [(7, 1), (7, 18)]))
    place = len(content[name])
    content[name].append(stray)
    root = any_folder(["images/7.jpg"], {"annotations/instances_own.json": json.dumps(content)})
    report = check_dataset(root)
    assert report.usable
    (found,) = report.notes
    assert found.startswith("instances_own.json has 1 ") and note in found
    assert found.endswith(f", such as {name}[{place}].") and "\x1b" not in found
    assert found in list(report.lines())
    dataset = load_dataset(root)
    assert tags(dataset) == {"7": ("person", "dog")}
    assert dataset.notes == report.notes


@pytest.mark.parametrize("as_written", [str, float, lambda key: f" {key}.0", lambda key: f"0{key}"])
def test_ids_agree_however_they_are_written(any_folder: Folder, as_written: Any) -> None:
    content = json.loads(instances({7: "7.jpg", 10: "10.jpg"}, [(7, 1), (10, 18)]))
    for annotation in content["annotations"]:
        annotation["image_id"] = as_written(annotation["image_id"])
    for category in content["categories"]:
        category["id"] = as_written(category["id"])
    photos = ["images/7.jpg", "images/10.jpg"]
    root = any_folder(photos, {"annotations/instances_own.json": json.dumps(content)})
    dataset = load_dataset(root)
    assert dataset.classes == ("person", "dog", "cow")
    assert tags(dataset) == {"7": ("person",), "10": ("dog",)}
    assert dataset.notes == ()


def test_ids_may_be_words(any_folder: Folder) -> None:
    content = json.loads(instances({}, []))
    content["images"] = [{"id": "a", "file_name": "1.jpg"}]
    content["categories"] = [{"id": "x", "name": "owl"}, {"id": 3, "name": "emu"}]
    content["annotations"] = [{"image_id": "a", "category_id": "x"}]
    root = any_folder(["images/1.jpg"], {"annotations/instances_own.json": json.dumps(content)})
    assert load_dataset(root).classes == ("emu", "owl")
    assert tags(load_dataset(root)) == {"1": ("owl",)}


def test_categories_of_one_name_are_one_class_and_background_is_none(any_folder: Folder) -> None:
    names = {0: "Background", 4: "cat", 6: "emu", 9: "cat"}
    categories = [{"id": key, "name": name} for key, name in names.items()]
    pairs = [(7, 0), (7, 9)]
    content = json.loads(instances({7: "7.jpg"}, pairs, categories=categories))
    content["annotations"][1] |= {"iscrowd": 0, "segmentation": [[3, 0, 4, 0, 4, 3, 3, 3]]}
    root = any_folder(["images/7.jpg"], {"annotations/instances_own.json": json.dumps(content)})
    dataset = load_dataset(root)
    assert (dataset.classes, tags(dataset)) == (("cat", "emu"), {"7": ("cat",)})
    assert masks(dataset) == {"7": [[0, 0, 0, 1]] * 3}


@pytest.mark.parametrize(
    "file_name",
    [
        "trip/1 a.jpg",
        "trip\\1 a.jpg",
        "C:\\photos\\1 a.jpg",
        "/home/ann/1 a.jpg",
        "../../media/upload/1 a.jpg",
        "/etc/../1 a.jpg",
        "https://host.org/x/1%20a.jpg?X-Amz-Signature=ab%2Fcd&d=/etc/passwd",
        "s3://bucket/1%20a.jpg",
        "/data/local-files/?d=upload/1%20a.jpg",
        "1 a.jpg?v=3",
    ],
)
def test_the_base_name_counts(any_folder: Folder, file_name: str) -> None:
    text = instances({1: file_name}, [(1, 1)])
    root = any_folder(["images/1 a.jpg", "../1 a.jpg"], {"annotations/instances_own.json": text})
    (sample,) = load_dataset(root).samples
    assert (sample.id, sample.tags) == ("1 a", ("person",))
    assert sample.image == root / "images" / "1 a.jpg"
    assert sample.mask


def test_a_name_may_have_question_marks_and_percent_signs(any_folder: Folder) -> None:
    text = instances({1: "who?.jpg", 2: "5%20.jpg"}, [(1, 1), (2, 18)])
    photos = ["images/who?.jpg", "images/5%20.jpg"]
    root = any_folder(photos, {"annotations/instances_own.json": text})
    assert tags(load_dataset(root)) == {"5%20": ("dog",), "who?": ("person",)}


@pytest.mark.parametrize(
    ("place", "photo", "split"),
    [
        ("annotations/train.json", "train/7.jpg", "train"),
        ("annotations/train.json", "images/7.jpg", "train"),
        ("train/_annotations.coco.json", "train/7.jpg", "train"),
        ("_annotations.coco.json", "7.jpg", "_annotations.coco"),
        ("result.json", "images/7.jpg", "result"),
        ("annotations/instances_default.json", "images/default/seq1/7.jpg", "default"),
    ],
)
def test_where_tools_put_the_file(any_folder: Folder, place: str, photo: str, split: str) -> None:
    other = {"annotations/captions_train.json": instances({}, [])}
    root = any_folder([photo], {place: instances({7: "7.jpg"}, [(7, 1)])} | other)
    dataset = load_dataset(root)
    assert (dataset.format, tags(dataset)) == ("coco", {"7": ("person",)})
    assert [s.name for s in check_dataset(root).splits] == [split]
    assert tags(load_dataset(root, split)) == tags(dataset)


@pytest.mark.parametrize("photo", ["Images/7.jpg", "Train/7.jpg"])
def test_folders_may_be_in_any_case(any_folder: Folder, photo: str) -> None:
    text = instances({7: "7.jpg"}, [(7, 1)])
    root = any_folder([photo], {"Annotations/instances_train.json": text})
    assert tags(load_dataset(root, "train")) == {"7": ("person",)}


def test_each_folder_of_roboflow_is_a_split(any_folder: Folder) -> None:
    files = {
        "train/_annotations.coco.json": instances({0: "a.jpg"}, [(0, 1)]),
        "valid/_annotations.coco.json": instances({0: "b.jpg"}, [(0, 18)]),
    }
    root = any_folder(["train/a.jpg", "valid/b.jpg"], files)
    assert tags(load_dataset(root)) == {"a": ("person",), "b": ("dog",)}
    assert tags(load_dataset(root, "valid")) == {"b": ("dog",)}


@pytest.mark.parametrize("texts", [{"notes.json": "{}"}, {"a.json": '{"shapes": [], "images": 1}'}])
def test_other_json_is_not_taken_for_coco(any_folder: Folder, texts: dict[str, str]) -> None:
    root = any_folder(["cat/1.jpg", "dog/2.jpg"], texts)
    assert load_dataset(root).format == "folder-per-class"


def test_a_table_of_tags_goes_before_a_loose_file(any_folder: Folder) -> None:
    texts = {"result.json": instances({7: "7.jpg"}, [(7, 1)]), "tags.csv": "image,tags\n7,emu\n"}
    assert load_dataset(any_folder(["images/7.jpg"], texts)).format == "tagged-folder"


@pytest.mark.parametrize("changes", [{"annotations": None}, {"annotations": []}])
def test_without_annotations_nobody_tagged_the_images(
    any_folder: Folder, changes: dict[str, Any]
) -> None:
    files = {
        "annotations/instances_train.json": instances({7: "7.jpg"}, [(7, 1)]),
        "annotations/instances_test.json": instances({8: "8.jpg"}, [], **changes),
    }
    root = any_folder(["images/7.jpg", "images/8.jpg"], files)
    dataset = load_dataset(root)
    assert (tags(dataset), dataset.untagged) == ({"7": ("person",)}, ("8",))
    assert dataset.notes == ("instances_test.json has no annotations: nobody tagged its 1 images.",)
    assert [(s.name, s.images) for s in check_dataset(root).splits] == [("test", 1), ("train", 1)]


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
        (instances({1: "1.jpg"}, [(1, 1)], categories=None), "has no lists"),
        ('{"images" []}', "can't be read as JSON: Expecting :"),
        ('{"images": [1 2]}', "can't be read as JSON: Expecting , or \\]"),
        (instances({}, [])[:-1], "can't be read as JSON"),
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
