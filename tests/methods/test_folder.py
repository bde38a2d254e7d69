"""Masks and maps of other tools, in every layout, and what is said of those that can't be used."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tiny import Lines, Start, masks
from weakseg.api import export_run
from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.masks import read_mask, write_classes, write_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json, stamps
from weakseg.methods import folder as folder_kind
from weakseg.recipe import Data, Recipe, check_recipe

Save = Callable[[Path, Sample, np.ndarray], None]


def recipe(folder: Path, holds: str, **steps: dict[str, Any]) -> Recipe:
    seed = {"kind": "folder", "path": str(folder), "holds": holds}
    if holds == "maps":
        steps = {"mask": {"kind": "threshold", "of": "given", "background": 0.5}, **steps}
    values = {"data": {"split": "all"}, "report": {"panels": 1}}
    return check_recipe({**values, "steps": {"given": seed, **steps}}, "folder")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos `a` (cat and owl), `b` (dog) and `c` (nothing), of 6 by 8 pixels."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\nowl\n")
    (root / "tags.csv").write_text("image,tags\na,cat;owl\nb,dog\nc,\n")
    for name in "abc":
        Image.new("RGB", (8, 6), "teal").save(root / "images" / f"{name}.png")
    return root


def truth(sample: Sample) -> np.ndarray:
    """A mask of a photo, with 255 in its last column."""
    mask = np.zeros((6, 8), np.uint8)
    for place, tag in enumerate(sample.tags):
        mask[:, 2 * place : 2 * place + 2] = ("cat", "dog", "owl").index(tag) + 1
    mask[:, 7] = 255
    return mask


def one_array(path: Path, maps: np.ndarray) -> None:
    np.savez(path.with_name(f"{path.name}.npz"), maps)


def of_tags(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    one_array(folder / sample.id, maps.astype(np.float64))


def of_classes(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    every = np.ones((3, 6, 8), np.float16)
    every[[("cat", "dog", "owl").index(tag) for tag in sample.tags]] = maps
    np.savez_compressed(folder / f"{sample.id}.npz", other=np.zeros(2), scores=every)


def tensors(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    safetensors.numpy.save_file({"cam": maps}, folder / f"{sample.id}.safetensors")


def beside(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    for tag, one in zip(sample.tags, maps, strict=True):
        Image.fromarray((one * 255).astype(np.uint8)).save(folder / f"{sample.id}_{tag}.png")


def within(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    for tag, one in zip(sample.tags, maps, strict=True):
        (folder / tag).mkdir(exist_ok=True)
        Image.fromarray((one * 255).astype(np.uint8)).save(folder / tag / f"{sample.id}.png")


def by_place(folder: Path, sample: Sample, maps: np.ndarray) -> None:
    (folder / "images").mkdir(exist_ok=True)
    one_array(folder / "images" / sample.id, maps)


def maps_of(sample: Sample) -> np.ndarray:
    ids = [("cat", "dog", "owl").index(tag) + 1 for tag in sample.tags]
    mask = truth(sample)
    return np.stack([mask == i for i in ids]).astype(np.float32)


def write_maps(folder: Path, dataset: Dataset, save: Save) -> Path:
    folder.mkdir()
    for sample in dataset.samples:
        if sample.tags:
            save(folder, sample, maps_of(sample))
    return folder


def write_masks(folder: Path, dataset: Dataset) -> Path:
    for sample in dataset.samples:
        write_mask(folder / f"{sample.id}.png", truth(sample))
    return folder


def test_masks_are_taken_as_they_are(data: Path, start: Start, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "given", load_dataset(data))
    write_classes(folder, ("cat", "dog", "owl"))
    out = tmp_path / "out"
    start(data, out, recipe(folder, "masks"))
    for sample in load_dataset(data).samples:
        assert np.array_equal(read_mask(out / "given" / f"{sample.id}.png"), truth(sample))
    said = start(data, out, recipe(folder, "masks")).said
    assert "given: up to date" in said
    changed = folder / "b.png"
    mask = read_mask(changed)
    mask[0, 0] = 3
    write_mask(changed, mask)
    said = start(data, out, recipe(folder, "masks")).said
    assert "given: 0 of 3 done before" in said
    assert np.array_equal(read_mask(out / "given" / "b.png"), mask)


@pytest.mark.parametrize("save", [of_tags, of_classes, tensors, beside, within, by_place])
def test_maps_in_every_layout(data: Path, start: Start, tmp_path: Path, save: Save) -> None:
    dataset = load_dataset(data)
    folder = write_maps(tmp_path / "given", dataset, save)
    out = tmp_path / "out"
    start(data, out, recipe(folder, "maps"))
    for sample in dataset.samples:
        expected = np.where(truth(sample) == 255, 0, truth(sample))
        assert np.array_equal(read_mask(out / "mask" / f"{sample.id}.png"), expected)
    assert "given: up to date" in start(data, out, recipe(folder, "maps")).said


def test_maps_that_are_not_kept_give_the_same(data: Path, start: Start, tmp_path: Path) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), of_tags)
    start(data, tmp_path / "kept", recipe(folder, "maps"))
    values = recipe(
        folder,
        "maps",
        given={"kind": "folder", "path": str(folder), "holds": "maps", "keep": False},
    )
    start(data, tmp_path / "not", values)
    named = {k: v for k, v in masks(tmp_path / "kept").items() if k.startswith("mask/")}
    assert named == masks(tmp_path / "not")


@pytest.mark.parametrize(
    ("name", "given"), [("coco", "annotations/instances_all.json"), ("yolo", ".")]
)
def test_masks_that_were_exported_come_back_byte_for_byte(
    photos: Path, start: Start, finished: Path, tmp_path: Path, name: str, given: str
) -> None:
    export_run(finished, name, tmp_path / "export", step="svm+crf", workers=1, progress=Lines())
    start(photos, tmp_path / "out", recipe(tmp_path / "export" / given, "masks"))
    for path in (finished / "svm+crf").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / "given" / path.name).read_bytes()


def test_a_tools_masks_that_do_not_fit(data: Path, start: Start, tmp_path: Path) -> None:
    labels = tmp_path / "given" / "labels"
    labels.mkdir(parents=True)
    (tmp_path / "given" / "data.yaml").write_text("names: [dog, cat]")
    (labels / "a.txt").touch()
    with pytest.raises(WeaksegError, match=r"has no masks of 2 of 3 photos, the first .* 'b'"):
        start(data, tmp_path / "out", recipe(tmp_path / "given", "masks"))
    (tmp_path / "given" / "data.yaml").write_text("names: [dog, cow]")
    with pytest.raises(WeaksegError, match=r"Unknown class 'cow'.*Known: background, cat, dog"):
        start(data, tmp_path / "out", recipe(tmp_path / "given", "masks"))
    (tmp_path / "some.json").write_text("{}")
    with pytest.raises(WeaksegError, match=r"there is no folder .*some\.json\. Give .* COCO's"):
        start(data, tmp_path / "out", recipe(tmp_path / "some.json", "masks"))


def test_a_row_of_figures_names_the_folder(photos: Path, start: Start, tmp_path: Path) -> None:
    folder = photos / "SegmentationClass"
    start(photos, tmp_path, recipe(folder, "masks"))
    (row,) = read_json(tmp_path / "metrics.json")["stages"]
    assert (row["name"], row["miou"], row["protocol"]["folder"]) == ("given", 1, str(folder))


def test_photos_in_folders(data: Path, start: Start, tmp_path: Path) -> None:
    """Of two photos of one name each has the mask of its own folder."""
    for folder in ("left", "right"):
        (data / "images" / folder).mkdir()
        Image.new("RGB", (8, 6)).save(data / "images" / folder / "x.png")
    (data / "tags.csv").write_text("image,tags\nleft_x,cat\nright_x,dog\n")
    given = tmp_path / "given"
    for number, folder in enumerate(("left", "right"), start=1):
        write_mask(given / folder / "x.png", np.full((6, 8), number, np.uint8))
    start(data, tmp_path / "out", recipe(given, "masks"))
    assert (read_mask(tmp_path / "out" / "given" / "left_x.png") == 1).all()
    assert (read_mask(tmp_path / "out" / "given" / "right_x.png") == 2).all()


def test_a_file_is_not_that_of_two_photos(data: Path, start: Start, tmp_path: Path) -> None:
    for folder in ("left", "right"):
        (data / "images" / folder / "car").mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(data / "images" / folder / "car" / "x.png")
    (data / "tags.csv").write_text("image,tags\nleft_car_x,cat\nright_car_x,dog\n")
    write_mask(tmp_path / "given" / "car" / "x.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(WeaksegError, match=r"no masks of 2 of 2 photos.*each of one photo"):
        start(data, tmp_path / "out", recipe(tmp_path / "given", "masks"))


def test_missing_files_are_counted_before_the_run(data: Path, start: Start, tmp_path: Path) -> None:
    dataset = load_dataset(data)
    folder = write_masks(tmp_path / "masks", dataset)
    for name in "bc":
        (folder / f"{name}.png").unlink()
    message = (
        r"^given: \S+masks has no masks of 2 of 3 photos, the first with the ID 'b'; .*ID\.png"
    )
    with pytest.raises(WeaksegError, match=message):
        start(data, tmp_path / "out", recipe(folder, "masks"))
    folder = write_maps(tmp_path / "maps", dataset, within)
    (folder / "owl" / "a.png").unlink()
    with pytest.raises(WeaksegError, match=r"no maps of 1 of 2 photos, .* 'a'; .*TAG/ID\.png"):
        start(data, tmp_path / "out", recipe(folder, "maps"))
    with pytest.raises(WeaksegError, match=r"given\.path: there is no folder .*nowhere\. Give"):
        start(data, tmp_path / "out", recipe(tmp_path / "nowhere", "maps"))
    assert not (tmp_path / "out").exists()


def test_photos_without_a_mask_may_be_unknown(data: Path, start: Start, tmp_path: Path) -> None:
    dataset = load_dataset(data)
    a, b, c = dataset.samples
    folder = write_masks(tmp_path / "masks", dataset)
    (folder / "b.png").unlink()
    masks = {"kind": "folder", "holds": "masks"}
    steps: dict[str, Any] = {
        "given": {**masks, "path": str(folder), "missing": "unknown"},
        "made": {**masks, "path": str(write_masks(tmp_path / "made", dataset))},
        "best": {"kind": "combine", "of": ["given", "made"], "how": "first"},
    }
    values = {"data": {"split": "all"}, "report": {"panels": 1}, "steps": steps}
    start(data, tmp_path / "out", check_recipe(values, "partly"))
    assert (read_mask(tmp_path / "out" / "given" / "b.png") == 255).all()
    for sample in (a, c):
        found = read_mask(tmp_path / "out" / "given" / f"{sample.id}.png")
        np.testing.assert_array_equal(found, truth(sample))
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "best" / "b.png"), truth(b))
    for file in folder.glob("*.png"):
        file.unlink()
    with pytest.raises(WeaksegError, match="no masks of 3 of 3 photos"):
        start(data, tmp_path / "out", check_recipe(values, "partly"))
    with pytest.raises(WeaksegError, match=r"given: missing: unknown is for masks"):
        check_recipe({"steps": {"given": {**steps["given"], "holds": "maps"}}}, "maps")


@pytest.mark.parametrize("holds", ["masks", "maps"])
def test_other_classes_are_refused(data: Path, start: Start, tmp_path: Path, holds: str) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), of_classes)
    write_masks(folder, load_dataset(data))
    write_classes(folder, ("cat", "owl", "dog"))
    with pytest.raises(WeaksegError, match="calls id 2 'owl', the data set 'dog'"):
        start(data, tmp_path / "out", recipe(folder, holds))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 6), np.uint8), r"height and width \(8, 6\), its photo \(6, 8\)"),
        (np.full((6, 8), 4, np.uint8), r"ids \[4\], where there are 3 classes\. A mask has"),
        (None, "it is empty"),
    ],
)
def test_masks_that_do_not_fit(
    data: Path, start: Start, tmp_path: Path, mask: np.ndarray | None, message: str
) -> None:
    folder = write_masks(tmp_path / "given", load_dataset(data))
    (folder / "a.png").write_bytes(b"")
    if mask is not None:
        write_mask(folder / "a.png", mask)
    with pytest.raises(WeaksegError, match=rf"^given: \S+a\.png .*{message}"):
        start(data, tmp_path / "out", recipe(folder, "masks"))


GOOD = np.zeros((2, 6, 8), np.float32)


def nan() -> np.ndarray:
    maps = GOOD.copy()
    maps[1, 2, 3] = np.nan
    return maps


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": nan()}, "finite and in"),
        ({"x": GOOD + 1.5}, "finite and in"),
        ({"x": GOOD - 0.1}, "finite and in"),
        ({"x": GOOD.transpose(0, 2, 1)}, "lie on their side: the photo is 6 by 8"),
        ({"x": GOOD[0]}, r"float32 \(6, 8\), no float \(K, h, w\)"),
        ({"x": GOOD[:, :0]}, r"no float \(K, h, w\)"),
        ({"x": GOOD.astype(int)}, "int64"),
        ({"x": GOOD[:1]}, "it has 1 maps, where the photo has 2 tags and there are 3 classes"),
        ({"x": np.zeros((4, 6, 8))}, "it has 4 maps"),
        ({"x": GOOD, "y": GOOD}, r"it has 2 arrays \(x, y\), none called scores"),
        ({"x": np.array([len], object)}, "allow_pickle"),
        ({}, "it has 0 arrays"),
    ],
)
def test_arrays_that_are_no_maps(
    data: Path, start: Start, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), of_tags)
    np.savez(folder / "a.npz", **arrays)
    refused(data, start, tmp_path, folder, "a.npz", message)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no array"])
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files_that_are_no_arrays(
    data: Path, start: Start, tmp_path: Path, content: bytes, suffix: str
) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), of_tags)
    (folder / "a.npz").unlink()
    (folder / f"a.{suffix}").write_bytes(content)
    refused(data, start, tmp_path, folder, f"a.{suffix}", "can't be read: ")


def test_a_bare_array_is_no_npz(data: Path, start: Start, tmp_path: Path) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), of_tags)
    with (folder / "a.npz").open("wb") as file:
        np.save(file, GOOD)
    refused(data, start, tmp_path, folder, "a.npz", "it is no npz file")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (8, 6)), "mode RGB, where a map is 8-bit grey"),
        (Image.new("I;16", (8, 6)), "mode I;16"),
        (Image.new("L", (4, 3)), r"height and width \(3, 4\), and a_cat\.png \(6, 8\)"),
    ],
)
def test_pictures_that_are_no_maps(
    data: Path, start: Start, tmp_path: Path, image: Image.Image, message: str
) -> None:
    folder = write_maps(tmp_path / "given", load_dataset(data), beside)
    image.save(folder / "a_owl.png")
    refused(data, start, tmp_path, folder, "a_owl.png", message)


def refused(
    data: Path, start: Start, tmp_path: Path, folder: Path, name: str, message: str
) -> None:
    with pytest.raises(WeaksegError, match=message) as caught:
        start(data, tmp_path / "out", recipe(folder, "maps"))
    said = str(caught.value)
    assert said.startswith(f"{folder / name} can't be ")
    assert "\n" not in said and len(said) < 400 + len(str(folder))


def test_a_photo_that_is_left_out_needs_no_mask(data: Path, start: Start, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "given", load_dataset(data))
    for name in "ab":
        (folder / f"{name}.png").unlink()
    (data / "images" / "a.png").write_bytes(b"no photo")
    with pytest.raises(WeaksegError, match=r"no masks of 1 of 3 photos, the first with the ID 'b'"):
        start(data, tmp_path / "out", recipe(folder, "masks"))
    without_dogs = Data(split="all", drop_classes=("dog",))
    chosen = dataclasses.replace(recipe(folder, "masks"), data=without_dogs)
    said = start(data, tmp_path / "out", chosen).said
    assert said[-1] == (
        "1 photos have a mask; left out: 1 that can't be read, 1 of dropped classes alone"
    )


def test_stamps_are_of_all_files_however_deep(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    names = ["a.png", "cat/a.png", "cat/deep/b.png"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"123")
    (folder / "empty").mkdir()
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    (folder / "cat" / "loop").symlink_to(folder)
    before = dict(stamps(folder))
    assert sorted(before) == names
    os.utime(folder / "cat" / "deep" / "b.png", ns=(1, 1))
    assert dict(stamps(folder)) == {**before, "cat/deep/b.png": [3, 1]}
    assert dict(stamps(folder / "a.png")) == {"a.png": before["a.png"]}
    assert not dict(stamps(tmp_path / "nowhere"))


def test_an_archive_that_would_inflate_to_any_size(
    data: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_kind, "_MOST_BYTES", 1000)
    folder = write_maps(tmp_path / "given", load_dataset(data), of_tags)
    np.savez_compressed(folder / "a.npz", np.zeros((2, 60, 80)))
    refused(data, start, tmp_path, folder, "a.npz", "its array has 76,928 bytes, over 1,000")
