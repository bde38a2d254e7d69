"""Layouts that people have: what is read as what it is, what is refused, and what is said."""

import json
from pathlib import Path
from typing import Protocol

import pytest

from weakseg.data.check import check_dataset
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.errors import WeaksegError


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


TAGS = "image,tags\n1,cat\n2,dog\n"


def tags(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.tags for sample in dataset.samples}


@pytest.mark.parametrize(
    ("photos", "notes"),
    [
        (["images/1.jpg", "images/2.jpg"], ()),
        (["Images/1.jpg", "Images/2.jpg"], ("photos in Images/",)),
        (["photos/1.jpg", "photos/2.jpg"], ("photos in photos/",)),
        (["PHOTOS/1.jpg", "PHOTOS/2.jpg"], ("photos in PHOTOS/",)),
        (["1.jpg", "2.jpg", "masks/1.png", ".trash/3.jpg"], ("photos beside tags.csv",)),
        (
            ["images/default/seq1/1.jpg", "images/2.jpg"],
            ("photos in folders below images/: 1, such as in 'default/seq1'",),
        ),
        (
            ["images/1.jpg", "images/2.jpg", "images/@eaDir/1.jpg", "images/_old/9.jpg"],
            ("folders of a system or a tool: 2, such as '@eaDir'",),
        ),
        (
            ["trip/1.jpg", "2.jpg"],
            ("photos beside tags.csv", "photos in folders below set/: 1, such as in 'trip'"),
        ),
    ],
)
def test_where_photos_lie(any_folder: Folder, photos: list[str], notes: tuple[str, ...]) -> None:
    root = any_folder(photos, {"tags.csv": TAGS})
    dataset = load_dataset(root)
    assert dataset.format == "tagged-folder"
    assert tags(dataset) == {"1": ("cat",), "2": ("dog",)}
    assert dataset.notes == notes
    report = check_dataset(root)
    assert report.notes == notes
    assert list(report.lines())[2 : 2 + len(notes)] == list(notes)
    assert not report.ignored


def test_photos_of_one_name_in_several_folders(any_folder: Folder) -> None:
    root = any_folder(
        ["images/a/1.jpg", "images/b/1.jpg", "images/b/2.jpg"],
        {"tags.csv": "image,tags\na/1.jpg,cat\nimages/b/1.jpg,dog\n2,owl\n"},
    )
    assert tags(load_dataset(root)) == {"a_1": ("cat",), "b_1": ("dog",), "2": ("owl",)}


@pytest.mark.parametrize("folder", ["\x1b[31m", "a\\b"])
def test_folders_whose_names_make_no_id(any_folder: Folder, folder: str) -> None:
    root = any_folder([f"images/{folder}/1.jpg", "images/a/1.jpg"], {"tags.csv": TAGS})
    (fault,) = check_dataset(root).faults
    assert fault.startswith("A folder in images/ names ")
    assert fault.isprintable()


def test_links_that_lead_back_are_not_followed_for_ever(any_folder: Folder) -> None:
    root = any_folder(["images/1.jpg", "images/a/2.jpg"], {"tags.csv": TAGS})
    (root / "images" / "a" / "back").symlink_to(root / "images")
    (root / "images" / "b").symlink_to(root / "images" / "a")
    assert tags(load_dataset(root)) == {"1": ("cat",), "2": ("dog",)}


@pytest.mark.parametrize(
    ("photos", "texts", "found"),
    [
        (
            ["train/1.jpg", "valid/1.jpg"],
            {"train/_annotations.coco.json": json.dumps({"images": []})},
            "photos in 'train', 'valid' with 'train/_annotations.coco.json'",
        ),
        (
            ["train/1.jpg", "test/1.jpg"],
            {},
            "photos in 'test', 'train', which sounds like no class",
        ),
        (
            ["stuff/1.jpg"],
            {},
            "photos in 'stuff' alone, and none without that class in background/",
        ),
        (["cat/1.jpg", "dog/1.jpg"], {"dog/1.xml": "<a/>"}, "'cat', 'dog' with 'dog/1.xml'"),
    ],
)
def test_folders_that_hardly_are_classes(
    any_folder: Folder, photos: list[str], texts: dict[str, str], found: str
) -> None:
    root = any_folder(photos, texts)
    with pytest.raises(WeaksegError, match="say --format folder-per-class") as caught:
        load_dataset(root)
    assert found in str(caught.value)
    assert load_dataset(root, format="folder-per-class").format == "folder-per-class"


def test_folders_of_systems_and_tools_are_no_classes(any_folder: Folder) -> None:
    root = any_folder(
        ["cat/1.jpg", "dog/1.jpg", "cat/b/2.jpg"]
        + [f"{name}/1.jpg" for name in ("@eaDir", "__MACOSX", "_x", "#recycle", "$RECYCLE.BIN")]
    )
    dataset = load_dataset(root)
    assert tags(dataset) == {"cat_1": ("cat",), "cat_2": ("cat",), "dog_1": ("dog",)}
    assert dataset.notes == (
        "photos in folders below their class's: 1, such as in 'cat/b'",
        "folders of a system or a tool, and no classes: '#recycle', '$RECYCLE.BIN', '@eaDir',"
        " '__MACOSX', '_x'",
    )


def test_folders_that_differ_in_case_are_one_class(any_folder: Folder) -> None:
    dataset = load_dataset(any_folder(["Cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]))
    assert tags(dataset) == {"Cat_1": ("cat",), "cat_2": ("cat",), "dog_1": ("dog",)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "Write one, with a row image,tags for each photo"),
        ({"_classes.csv": "-"}, "If '_classes.csv' has the tags, give it that name"),
        ({"tags.xlsx": "-"}, "Save 'tags.xlsx' under that name, as CSV UTF-8"),
    ],
)
@pytest.mark.parametrize("photo", ["1.jpg", "images/1.jpg"])
def test_photos_without_a_table(
    any_folder: Folder, texts: dict[str, str], message: str, photo: str
) -> None:
    with pytest.raises(WeaksegError, match=message):
        load_dataset(any_folder([photo], texts))


VOC = {"tags.csv": TAGS, "classes.txt": "cat\ndog\n"}
VOC_PHOTOS = ["JPEGImages/1.jpg", "JPEGImages/2.jpg"]


@pytest.mark.parametrize(
    "line", ["/JPEGImages/2.jpg /SegmentationClassAug/2.png", "JPEGImages/2.jpg", "2.jpg", "2"]
)
def test_lines_of_voc_lists(any_folder: Folder, line: str) -> None:
    root = any_folder(VOC_PHOTOS, {**VOC, "ImageSets/Segmentation/train.txt": f"{line}\n"})
    dataset = load_dataset(root, "train")
    assert tags(dataset) == {"2": ("dog",)}
    assert len(dataset.notes) == ("/" in line)


def test_voc_lists_in_main_alone(any_folder: Folder) -> None:
    lists = {
        "ImageSets/Main/train.txt": "2\n",
        "ImageSets/Main/cat_train.txt": "1  1\n2 -1\n",
        "ImageSets/Main/dog_val.txt": "1 -1\n",
    }
    root = any_folder(VOC_PHOTOS, {**VOC, **lists})
    dataset = load_dataset(root, "train")
    assert tags(dataset) == {"2": ("dog",)}
    note = "there are no lists in ImageSets/Segmentation/: train.txt is that of Main/"
    assert dataset.notes == (note,)
    (split,) = check_dataset(root).splits
    assert (split.name, split.images, split.notes) == ("train", 1, (note,))


def test_lists_for_segmentation_go_before_others(any_folder: Folder) -> None:
    lists = {"ImageSets/Main/train.txt": "1\n", "ImageSets/Segmentation/train.txt": "2\n"}
    dataset = load_dataset(any_folder(VOC_PHOTOS, {**VOC, **lists}), "train")
    assert tags(dataset) == {"2": ("dog",)}
    assert dataset.notes == ()


def test_names_in_a_split_are_matched_and_said(any_folder: Folder) -> None:
    root = any_folder(
        ["images/IMG_1.JPG", "images/IMG_2.JPG"],
        {"tags.csv": "image,tags\nIMG_1,cat\nIMG_2,dog\n", "splits/train.txt": "img_2.jpg\n"},
    )
    dataset = load_dataset(root, "train")
    assert tags(dataset) == {"IMG_2": ("dog",)}
    note = "photos named in another case than their files: 1, such as 'img_2.jpg' for 'IMG_2'"
    assert dataset.notes == (f"train.txt: {note}",)


def test_lists_that_notepad_saved(any_folder: Folder) -> None:
    root = any_folder(["images/1.jpg"], {"tags.csv": "image,tags\n1,kočka\n"})
    (root / "classes.txt").write_bytes("pes\r\nkočka\r\n".encode("utf-16"))
    assert load_dataset(root).classes == ("pes", "kočka")


def test_two_words_are_one_tag_where_they_are_declared_as_two_classes(any_folder: Folder) -> None:
    photos = [f"images/{i}.jpg" for i in (1, 2)]
    table = "image,tags\n1,Dining table\n2,dining table\n"
    with pytest.raises(WeaksegError, match="'Dining table', one tag or two"):
        load_dataset(any_folder(photos, {"tags.csv": table.replace("dining", "Dining")}))


def test_declared_classes_end_the_doubt(any_folder: Folder) -> None:
    photos = [f"images/{i}.jpg" for i in (1, 2)]
    texts = {"tags.csv": "image,tags\n1,Cat dog\n2,Cat dog\n", "classes.txt": "cat\ndog\n"}
    assert tags(load_dataset(any_folder(photos, texts))) == {
        "1": ("cat", "dog"),
        "2": ("cat", "dog"),
    }


@pytest.mark.parametrize(
    ("photos", "texts"),
    [
        (["images/1.jpg"], {"tags.csv": "image,tags\n1," + "x" * 100_000 + "\n"}),
        (["images/1.jpg"], {"tags.csv": "image,tags\n" + "1" * 100_000 + ",cat\n"}),
        (["images/1.jpg"], {"tags.csv": "image,tags\n1,cat\n" + "," * 100_000 + "a\n"}),
        (
            ["images/1.jpg"],
            {
                "tags.csv": "image,tags\n" + "".join(f"1,tag {i};\n" for i in range(20_000)),
                "classes.txt": "cat\ndog\n",
            },
        ),
        (["images/1.jpg"], {"tags.csv": TAGS, "splits/a.txt": "x" * 100_000 + "\n"}),
        (["images/1.jpg"], {"tags.csv": TAGS, "splits/a.txt": "\x01" * 100_000 + "\n"}),
        (["images/1.jpg"], {"tags.csv": TAGS, "classes.txt": "x" * 100_000 + "\n"}),
        (["images/1.jpg"], {"tags.csv": TAGS, "classes.txt": "x" * 100_000 + "\n" + "cat\n" * 9}),
        (["images/1.jpg"], {"tags.csv": TAGS, "classes.txt": "\n".join(map(str, range(20_000)))}),
    ],
)
def test_no_line_of_a_report_is_without_bounds(
    any_folder: Folder, photos: list[str], texts: dict[str, str]
) -> None:
    root = any_folder(photos, texts)
    assert sum(map(len, check_dataset(root).lines())) < 10_000
    try:
        load_dataset(root)
    except WeaksegError as error:
        assert len(str(error)) < 2_000
