"""The generated data set: reproducible, consistent, and laid out as promised."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weakseg.data.masks import read_mask
from weakseg.data.synth import KINDS, MAX_TAGS, SIDES, generate, make_scene
from weakseg.errors import WeaksegError

IMAGES = 10
NAMES = [kind.name for kind in KINDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth")
    generate(root, IMAGES, seed=3)
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def masks(root: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted((root / "SegmentationClass").iterdir()):
        yield path.stem, read_mask(path)


def split(root: Path, name: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()


def test_same_seed_gives_same_bytes(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, IMAGES, seed=3)
    assert contents(tmp_path) == contents(folder)


def test_larger_set_continues_smaller_one(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, 4, seed=3)
    larger = contents(folder)
    for name, data in contents(tmp_path).items():
        assert (
            larger[name][: len(data)] == data
            if name.endswith((".txt", ".csv"))
            else (larger[name] == data)
        )


def test_another_seed_gives_other_images(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, 2, seed=4)
    ours, other = contents(folder), contents(tmp_path)
    photos = [name for name in other if name.endswith(".jpg")]
    assert len(photos) == 2
    assert all(ours[name] != other[name] for name in photos)


def test_layout(folder: Path) -> None:
    ids = [f"{index:06d}" for index in range(IMAGES)]
    assert set(contents(folder)) == {
        "classes.txt",
        "tags.csv",
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
        *(f"JPEGImages/{i}.jpg" for i in ids),
        *(f"SegmentationClass/{i}.png" for i in ids),
        *(f"SegmentationObject/{i}.png" for i in ids),
    }
    assert (folder / "classes.txt").read_text().splitlines() == NAMES


def test_splits_share_out_all_images(folder: Path) -> None:
    train, val = split(folder, "train"), split(folder, "val")
    assert sorted(train + val) == [image_id for image_id, _ in masks(folder)]
    assert 0.15 < len(val) / IMAGES < 0.25


def test_tags_are_the_classes_in_the_mask(folder: Path) -> None:
    with (folder / "tags.csv").open(newline="") as file:
        tags = {row["image"]: row["tags"].split() for row in csv.DictReader(file)}
    shown = {i: [NAMES[c - 1] for c in np.unique(mask) if c] for i, mask in masks(folder)}
    assert tags == shown
    assert all(1 <= len(names) <= MAX_TAGS for names in tags.values())
    assert {name for names in tags.values() for name in names} == set(NAMES)


def test_objects_are_numbered_and_share_out_the_mask(folder: Path) -> None:
    counts = set()
    for image_id, mask in masks(folder):
        objects = read_mask(folder / "SegmentationObject" / f"{image_id}.png")
        assert ((objects > 0) == (mask > 0)).all()
        numbers = range(1, objects.max() + 1)
        assert all(len(np.unique(mask[objects == number])) == 1 for number in numbers)
        counts.add((len(numbers), len(np.unique(mask[mask > 0]))))
    assert any(number > classes for number, classes in counts)


def test_photos_and_masks_agree_in_size(folder: Path) -> None:
    shapes = set()
    for image_id, mask in masks(folder):
        with Image.open(folder / "JPEGImages" / f"{image_id}.jpg") as photo:
            assert photo.mode == "RGB"
            assert photo.size == mask.shape[::-1]
        assert all(SIDES[0] <= side <= SIDES[1] for side in mask.shape)
        shapes.add(mask.shape)
    assert len(shapes) > IMAGES // 2


@pytest.mark.parametrize("first", range(1, len(KINDS) + 1))
def test_scene_shows_the_class_it_was_asked_for(first: int) -> None:
    for seed in range(3):
        photo, mask, _ = make_scene(np.random.default_rng(seed), first)
        assert photo.dtype == mask.dtype == np.uint8
        assert photo.shape == (*mask.shape, 3)
        assert mask.max() <= len(KINDS)
        assert (mask == first).sum() > 200
        assert (mask == 0).mean() > 0.1


def test_body_takes_a_new_colour_in_every_image() -> None:
    means = []
    for seed in range(6):
        photo, mask, _ = make_scene(np.random.default_rng(seed), first=1)
        means.append(photo[mask == 1].mean(0))
    assert np.std(means, axis=0).min() > 15


def test_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(WeaksegError, match="isn't an empty folder"):
        generate(tmp_path, 1, seed=0)
    assert contents(tmp_path) == {"mine.txt": b"keep"}


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("keep")
    with pytest.raises(WeaksegError, match="isn't an empty folder"):
        generate(path, 1, seed=0)
    assert path.read_text() == "keep"


@pytest.mark.parametrize(("images", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_out_of_range(tmp_path: Path, images: int, seed: int) -> None:
    with pytest.raises(WeaksegError, match="at least"):
        generate(tmp_path / "new", images, seed)
    assert not (tmp_path / "new").exists()
