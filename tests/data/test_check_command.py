"""`weakseg data check` and `weakseg evaluate` on every layout."""

import json
import sys
from pathlib import Path
from typing import Protocol

import pytest

from weakseg.cli import main
from weakseg.data.formats import FORMATS


class Folder(Protocol):
    def __call__(self, photos: list[str], texts: dict[str, str] | None = None) -> Path: ...


OBJECT = "<annotation><object><name>{}</name></object></annotation>"
COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 1}],
    "categories": [{"id": 1, "name": "cat"}],
}
FOLDERS = {
    "voc": (
        ["JPEGImages/1.jpg", "JPEGImages/2.jpg"],
        {"Annotations/1.xml": OBJECT.format("cat"), "Annotations/2.xml": "<annotation/>"},
    ),
    "ilsvrc": (
        ["Data/DET/train/a/1.JPEG", "Data/DET/val/2.JPEG"],
        {
            "Annotations/DET/train/a/1.xml": OBJECT.format("n02121808"),
            "Annotations/DET/val/2.xml": "<annotation/>",
            "map_det.txt": "n02121808 1 cat\n",
        },
    ),
    "coco": (
        ["own/1.jpg", "images/2.jpg"],
        {"annotations/instances_own.json": json.dumps(COCO)},
    ),
    "webdataset": (
        ["some-000000.tar/1.jpg", "some-000001.tar/2.jpg"],
        {
            "some-000000.tar/1.json": json.dumps({"tags": ["cat"]}),
            "some-000001.tar/2.json": json.dumps({"tags": []}),
        },
    ),
    "tagged-folder": (["images/1.jpg", "images/2.jpg"], {"tags.csv": "image,tags\n1,cat\n2,\n"}),
    "folder-per-class": (["cat/1.jpg", "background/2.jpg"], {}),
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["weakseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_every_format_has_a_folder_here() -> None:
    assert FOLDERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("chosen", [False, True])
def test_check(
    any_folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    chosen: bool,
) -> None:
    root = any_folder(*FOLDERS[name])
    assert run(monkeypatch, "data", "check", root, *(["--format", name] if chosen else [])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{root}: {name}, usable"
    assert lines[1] == "2 photos, 2 tagged, 0 with a mask"
    assert "photos by number of tags: 0: 1, 1: 1" in lines
    assert "cat" in [line.split()[0] for line in lines]


def test_a_format_that_is_chosen_goes_before_the_first_that_fits(
    any_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = any_folder(["images/1.jpg"], {"tags.csv": "image,tags\n1,cat\n"})
    assert run(monkeypatch, "data", "check", root, "--format", "folder-per-class") == 0
    assert capsys.readouterr().out.startswith(f"{root}: folder-per-class, usable")
    assert run(monkeypatch, "data", "check", root, "--format", "folder") == 2
    assert "Unknown format 'folder'" in capsys.readouterr().err


def test_evaluate_takes_a_format(
    any_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = any_folder(["images/1.jpg"], {"tags.csv": "image,tags\n1,cat\n"})
    shown = ("evaluate", "--pred", root, "--data", root, "--split", "splat")
    assert run(monkeypatch, *shown, "--format", "coco") == 2
    assert "Expected one of: coco" in capsys.readouterr().err
    assert run(monkeypatch, *shown) == 2
    assert "there is no split 'splat'" in capsys.readouterr().err


def test_check_and_run_say_what_was_understood(
    any_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = any_folder(
        ["Photos/a/IMG_1.jpg", "Photos/IMG_2.jpg"],
        {"Tags.csv": "Photo;Labels\nimg_1.jpg;Cat, owl\nIMG_2.jpg;cat\n"},
    )
    understood = [
        "photos in Photos/",
        "photos in folders below Photos/: 1, such as in 'a'",
        "Tags.csv: columns separated by semicolons; photos in 'Photo'; tags in 'Labels';"
        " tags separated by commas",
        "photos named in another case than their files: 1, such as 'img_1.jpg' for 'IMG_1'",
        "tags that differ in case or spaces alone are taken as one: 'Cat' as 'cat'",
    ]
    assert run(monkeypatch, "data", "check", root) == 0
    assert capsys.readouterr().out.splitlines()[2:7] == understood
    for photo in root.rglob("*.jpg"):
        photo.write_bytes(b"so that the run ends here")
    command = ("run", "demo", "--data", root, "--out", root / "run", "data.split=all")
    assert run(monkeypatch, *command, "data.held_out=null") == 2
    *said, error = capsys.readouterr().err.splitlines()
    assert [line for line in said if line in understood] == understood
    assert "None of the photos" in error


def test_check_and_run_stop_where_no_photo_has_a_tag(
    any_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = any_folder(
        ["JPEGImages/1.jpg", "JPEGImages/2.jpg"], {"tags.csv": "image,tags\n1,\n2,\n"}
    )
    reason = "one of the 2 photos that are tagged has a tag. Tag some."
    assert run(monkeypatch, "data", "check", root) == 1
    assert f"  N{reason}" in capsys.readouterr().out.splitlines()
    command = ("run", "demo", "--data", root, "--out", root / "run", "data.split=all")
    assert run(monkeypatch, *command) == 2
    assert capsys.readouterr().err.endswith(f": n{reason}\n")
    assert not (root / "run").exists()
