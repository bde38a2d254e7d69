import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.names import base_name, match_names


def photos(*files: str) -> dict[str, Path]:
    return {Path(file).stem: Path("set", "images", file) for file in files}


@pytest.mark.parametrize(
    ("file", "name", "kind"),
    [
        ("IMG_1.JPG", "img_1.jpg", "in another case"),
        ("IMG_1.JPG", "img_1", "in another case"),
        ("img_1.jpg", "IMG_1.JPEG", "in another case"),
        ("000042.jpg", "42", "without their leading zeros"),
        ("0.jpg", "000", "without their leading zeros"),
        ("1.jpg", "images/1.jpg", "by a path"),
        ("1.jpg", "../../elsewhere/1.jpg", "by a path"),
        ("1.jpg", "/home/ann/1", "by a path"),
        ("1.jpg", r"C:\Users\ann\1.jpg", "by a path"),
        ("1.jpg", r"\\server\share\1.jpg", "by a path"),
        ("1.jpg", "https://example.org/a/1.jpg?size=2#top", "by a path"),
        ("1.jpg", "s3://bucket/a/1.jpg?version=2", "by a path"),
        ("my photo.jpg", "file:///home/my%20photo.jpg", "by a path"),
        ("1.jpg", "http://[broken/1.jpg", "by a path"),
        ("IMG_1.JPG", "photos/img_1.jpg", "in another case"),
        ("007.jpg", "images/7.jpg", "without their leading zeros"),
    ],
)
def test_one_photo_that_can_be_meant(file: str, name: str, kind: str) -> None:
    paths = photos(file, "other.jpg")
    matches = match_names([name, name, "other"], paths)
    assert matches.ids == {name: Path(file).stem, "other": "other"}
    (note,) = matches.notes
    assert note.startswith(f"photos named {kind}")
    assert note.endswith(f": 1, such as {name!r} for {Path(file).stem!r}")


@pytest.mark.parametrize(
    ("files", "names", "not_matched"),
    [
        (["IMG_1.jpg", "Img_1.jpg"], ["img_1"], ["img_1"]),
        (["007.jpg", "07.jpg"], ["7"], ["7"]),
        (["IMG_1.jpg"], ["IMG_1", "img_1"], ["img_1"]),
        (["007.jpg"], ["7", "07"], ["7", "07"]),
        (["1.jpg"], ["cat/1.jpg", "dog/1.jpg"], ["cat/1", "dog/1"]),
        (["1.jpg"], ["10", "01_a", "a1", ""], ["10", "01_a", "a1", ""]),
        (["v007.jpg"], ["v7"], ["v7"]),
    ],
)
def test_names_that_may_mean_another_photo_mean_none(
    files: list[str], names: list[str], not_matched: list[str]
) -> None:
    matches = match_names(names, photos(*files))
    assert [i for i in matches.ids.values() if i not in photos(*files)] == not_matched
    assert matches.notes == ()


def test_folders_in_ids_are_told_by_paths() -> None:
    paths = {f"{folder}_1": Path("set", folder, "1.jpg") for folder in ("cat", "dog")}
    assert match_names(["cat/1.jpg", r"set\dog\1.jpg", "1.jpg"], paths).ids == {
        "cat/1.jpg": "cat_1",
        r"set\dog\1.jpg": "dog_1",
        "1.jpg": "1",
    }


@given(st.lists(st.text(st.characters(categories=("L", "N")), min_size=1), unique=True))
def test_ids_and_files_names_mean_their_photos(stems: list[str]) -> None:
    ids = sorted({unicodedata.normalize("NFC", stem) for stem in stems})
    paths = {image: Path(f"{image}.jpg") for image in ids}
    assert match_names(ids, paths).ids == {image: image for image in ids}
    assert match_names([f"{image}.jpg" for image in ids], paths).ids == {
        f"{image}.jpg": image for image in ids
    }


@given(st.text())
def test_no_name_leads_out_of_the_data_set(name: str) -> None:
    assert not set(base_name(name)) & set("/\\") or "://" in name
    assert set(match_names([name], photos("1.jpg")).ids) == {name}
