"""What is written in each format is read back by the tools' own readers."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from handmade import CLASSES, PHOTOS, PLAIN, TAGS, Made, saved_as
from weakseg.data.balance import Balance
from weakseg.data.dataset import load_dataset
from weakseg.data.formats.voc import Voc
from weakseg.data.images import read_photo
from weakseg.data.masks import VOC_PALETTE, MaskFile
from weakseg.data.mended import find_tool
from weakseg.data.mended.base import Find
from weakseg.data.outlines import paint, region
from weakseg.data.places import mask_files
from weakseg.engine.opened import open_run
from weakseg.methods.base import PhotoMask, Photos, task_of
from weakseg.recipe import check_recipe

IDS = sorted(name.rpartition(".")[0] for name in PHOTOS)


def given_back(path: Path) -> Find:
    tool = find_tool(path)
    assert tool
    return tool.open(path, CLASSES)


def in_png(folder: Path) -> Find:
    return lambda sample: [MaskFile.of(path) for path in mask_files(folder, sample)]


def unpacked(out: Path) -> Path:
    with zipfile.ZipFile(out / "annotations.zip") as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def annotated(out: Path) -> Path:
    """What Label Studio exports once every prediction was accepted as it is."""
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, start=1):
        task |= {"id": number, "annotations": task.pop("predictions")}
    place = out / "export.json"
    place.write_text(json.dumps(tasks), encoding="utf-8")
    return place


BACK: dict[str, Callable[[Path], Find]] = {
    "coco": lambda out: given_back(out / "annotations" / "instances_train.json"),
    "coco-panoptic": lambda out: given_back(out / "annotations" / "panoptic_train.json"),
    "voc": lambda out: in_png(out / "SegmentationClass"),
    "cvat": lambda out: given_back(unpacked(out)),
    "label-studio": lambda out: given_back(annotated(out)),
    "yolo": lambda out: given_back(out),
}
WITH_UNCERTAIN = ("coco-panoptic", "voc")


@pytest.mark.parametrize("name", BACK)
def test_masks_come_back_as_they_were(made: Made, tmp_path: Path, name: str) -> None:
    out = made.export(name, tmp_path / "out")
    find = BACK[name](out)
    for sample in made.samples:
        (mask,) = find(sample)
        kept = made.mask if name in WITH_UNCERTAIN else made.certain
        expected = saved_as(tmp_path / "expected.png", kept(sample.id))
        assert saved_as(tmp_path / "back.png", mask.read()) == expected, sample.id
    lossy = [line for line in made.said if "4 photos have uncertain pixels (255), which" in line]
    assert bool(lossy) == (name not in WITH_UNCERTAIN)


GIVEN = {
    "coco": "annotations/instances_train.json",
    "coco-panoptic": "annotations/panoptic_train.json",
    "voc": "SegmentationClass",
    "yolo": ".",
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_step_of_kind_folder_reads_it(made: Made, tmp_path: Path, name: str) -> None:
    place = made.export(name, tmp_path / "out") / GIVEN[name]
    values = {"kind": "folder", "path": str(place), "holds": "masks"}
    recipe = check_recipe({"data": {"split": "train"}, "steps": {"back": values}}, "back")
    (step,) = recipe.build(tmp_path / "again")
    samples = tuple(made.samples)
    assert step.kind.check and step.kind.work
    step.kind.check(step, Photos(CLASSES, samples, CLASSES, Balance()), None)  # type: ignore[arg-type]
    work = step.kind.work(step)
    for sample in samples:
        kept = made.mask if name in WITH_UNCERTAIN else made.certain
        result = work(task_of(sample, CLASSES))
        assert isinstance(result, PhotoMask)
        assert np.array_equal(result.ids, kept(sample.id))


COPIES = {
    "coco": ("images", IDS),
    "coco-panoptic": ("images", IDS),
    "voc": ("JPEGImages", [*PLAIN[:2], PLAIN[3]]),
    "cvat": ("images", IDS),
    "label-studio": ("images", IDS),
    "yolo": ("images/train", IDS),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_photos_fit_their_masks_for_any_reader(
    made: Made, tmp_path: Path, name: str
) -> None:
    """Any reader: one that knows nothing of EXIF, of 16 bits or of transparency."""
    place, _ = COPIES[name]
    out = made.export(name, tmp_path / "out") / place
    assert {path.stem for path in out.iterdir()} == set(IDS)
    for path in out.iterdir():
        source = made.run.files[path.stem]
        with Image.open(path) as image:
            assert image.mode in ("L", "RGB")
            assert (image.height, image.width) == made.mask(path.stem).shape
            seen = np.asarray(image.convert("RGB"), int)
        as_it_is = path.stem in PLAIN and (name != "voc" or source.suffix == ".jpg")
        if as_it_is:
            assert path.read_bytes() == source.read_bytes()
        lossless = path.suffix == ".png" or as_it_is
        far = np.abs(seen - read_photo(source)).mean()
        assert far == 0 if lossless else far < 12


def test_coco_is_right_by_its_own_measure(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    out = made.export("coco", tmp_path / "out")
    truth = coco.COCO(str(out / "annotations" / "instances_train.json"))
    names = {image["id"]: image["file_name"] for image in truth.loadImgs(truth.getImgIds())}
    assert [Path(name).stem for name in names.values()] == IDS
    for annotation in truth.loadAnns(truth.getAnnIds()):
        pixels = truth.annToMask(annotation)
        stem = Path(names[annotation["image_id"]]).stem
        assert np.array_equal(pixels == 1, made.mask(stem) == annotation["category_id"])
        rows, columns = np.nonzero(pixels)
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert annotation["bbox"] == [columns.min(), rows.min(), width, height]
        assert annotation["area"] == pixels.sum()
    found = [dict(one, score=0.9) for one in truth.dataset["annotations"]]
    measured = evaluation.COCOeval(truth, truth.loadRes(found), "segm")
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    assert measured.stats[0] == 1.0
    assert [c["name"] for c in truth.dataset["categories"]] == list(CLASSES)


def test_panoptic_segments_are_those_of_the_picture(made: Made, tmp_path: Path) -> None:
    path = made.export("coco-panoptic", tmp_path / "out") / "annotations" / "panoptic_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [c["name"] for c in content["categories"]] == [*CLASSES, "background"]
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        assert image["id"] == annotation["image_id"]
        picture = Image.open(path.with_suffix("") / annotation["file_name"])
        assert picture.mode == "RGB"
        numbers = np.asarray(picture, int) @ (1, 256, 65536)
        segments = {one["id"]: one for one in annotation["segments_info"]}
        assert set(np.unique(numbers).tolist()) - {0} == set(segments)
        for number, segment in segments.items():
            assert segment["area"] == (numbers == number).sum() and segment["iscrowd"] == 0


def test_voc_is_a_data_set_in_its_layout(made: Made, tmp_path: Path) -> None:
    out = made.export("voc", tmp_path / "out")
    layout = Voc()
    assert layout.matches(out) and layout.classes(out) == CLASSES
    photos = layout.photos(out)
    assert not photos.faults and set(layout.masks(out, photos).of) == set(IDS)
    assert layout.read_split(layout.splits(out)["train"]).names == tuple(IDS)


def test_coco_is_a_data_set_in_its_layout(made: Made, tmp_path: Path) -> None:
    out = made.export("coco", tmp_path / "out")
    dataset = load_dataset(out)
    assert (dataset.format, dataset.classes) == ("coco", CLASSES)
    for sample in dataset.samples:
        assert sample.mask
        assert np.array_equal(sample.mask.read(), made.certain(sample.id))


def test_cvat_finds_a_colour_for_every_pixel(made: Made, tmp_path: Path) -> None:
    """Read by the rules of its own reader: colours of `labelmap.txt`, objects from 1."""
    out = made.export("cvat", tmp_path / "out")
    with zipfile.ZipFile(out / "annotations.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
        fields = [line.split(":") for line in lines if not line.startswith("#")]
        assert all(len(line) == 4 for line in fields)
        colours = {tuple(map(int, colour.split(","))): name for name, colour, _, _ in fields}
        assert archive.read("ImageSets/Segmentation/default.txt").decode().splitlines() == IDS
        objects = {tuple(colour): number for number, colour in enumerate(VOC_PALETTE.tolist())}
        for name in IDS:
            both = []
            for folder in ("SegmentationClass", "SegmentationObject"):
                content = archive.read(f"{folder}/{name}.png")
                with Image.open(io.BytesIO(content)) as image:
                    assert image.mode == "RGB"
                    both.append(np.asarray(image).reshape(-1, 3).tolist())
            of_object: dict[int, set[str]] = {}
            for colour, number in zip(*both, strict=True):
                of_object.setdefault(objects[tuple(number)], set()).add(colours[tuple(colour)])
            assert of_object.pop(0) == {"background"}
            assert all(len(names) == 1 for names in of_object.values())
    labels = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in labels] == list(CLASSES)


def test_label_studio_has_an_interface_for_its_tasks(made: Made, tmp_path: Path) -> None:
    made.trust("given", plain=0.25)
    out = made.export("label-studio", tmp_path / "out")
    view = ElementTree.parse(out / "labels.xml").getroot()
    (image,), (brush,) = view.iter("Image"), view.iter("BrushLabels")
    assert [label.get("value") for label in brush] == list(CLASSES)
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    scored = 0
    for task in tasks:
        address = task["data"][str(image.get("value")).removeprefix("$")]
        assert " " not in address and "#" not in address
        (prediction,) = task["predictions"]
        scored += prediction.get("score") == 0.25
        for one in prediction["result"]:
            assert (one["from_name"], one["to_name"]) == (brush.get("name"), image.get("name"))
    assert scored == 1 and len(tasks) == len(IDS)


def test_yolo_is_read_by_its_rules(made: Made, tmp_path: Path) -> None:
    out = made.export("yolo", tmp_path / "out")
    content = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert content["names"] == dict(enumerate(CLASSES))
    for image in (out / content["train"]).iterdir():
        labels = out / "labels" / "train" / f"{image.stem}.txt"
        height, width = made.mask(image.stem).shape
        found = []
        for line in labels.read_text().splitlines():
            first, *shares = line.split()
            points = np.array(shares, float)
            assert points.min() >= 0 and points.max() <= 1
            polygon = (points.reshape(-1, 2) * (width, height)).ravel().tolist()
            found.append((int(first) + 1, region([polygon], height, width)))
        assert np.array_equal(paint(found, height, width), made.certain(image.stem))


def test_datasets_loads_it_without_a_script(made: Made, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made.trust("given", plain=0.25)
    out = made.export("huggingface", tmp_path / "out")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    rows = loaded["train"]
    assert rows.features["classes"].feature.names == list(CLASSES)
    for row in rows:
        mask = np.asarray(row["mask"])
        assert row["mask"].mode == "P" and np.array_equal(mask, made.mask(row["id"]))
        assert (row["image"].height, row["image"].width) == mask.shape
        assert {c + 1 for c in row["classes"]} == set(np.unique(mask).tolist()) - {0, 255}
    assert [row["id"] for row in rows] == IDS
    assert [row["confidence"] for row in rows if row["id"] == "plain"] == [0.25]
    names = json.loads((out / "id2label.json").read_text(encoding="utf-8"))
    assert names == {"0": "background", **{str(i): n for i, n in enumerate(CLASSES, start=1)}}


def test_webdataset_reads_it(made: Made, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    out = made.export("webdataset", tmp_path / "out")
    (shard,) = out.glob("*.tar")
    rows: Iterator[dict[str, Any]] = iter(
        webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil")
    )
    seen = []
    for row in rows:
        seen.append(row["json"]["id"])
        mask = np.asarray(row["mask.png"])[..., 0]  # grey as RGB, by its decoder
        assert np.array_equal(mask, made.mask(seen[-1]))
        photo = row.get("jpg") or row["png"]
        assert (photo.height, photo.width) == mask.shape
    assert seen == IDS


@pytest.mark.parametrize("reviewed", [{"grey": CLASSES[::2]}, {IDS[-1]: ()}])
def test_a_webdataset_is_a_data_set_of_the_same_photos_tags_and_masks(
    made: Made, tmp_path: Path, reviewed: dict[str, tuple[str, ...]]
) -> None:
    made.run.folder.joinpath("review").mkdir()
    (made.run.folder / "review" / "tags.json").write_text(json.dumps(reviewed))
    out = tmp_path / "out"
    command("export", made.run.folder, "--format", "webdataset", "--out", out, "--workers", 1)
    command("data", "check", out)

    dataset = load_dataset(out, "train", untagged=True)
    assert dataset.format == "webdataset" and dataset.classes == CLASSES
    assert len(dataset.samples) == len(IDS)
    tags = {name.rpartition(".")[0]: its for name, its in TAGS.items()} | reviewed
    for photo, sample in zip(IDS, dataset.samples, strict=True):
        assert sample.tags == tags.get(photo, ())
        assert (sample.id in dataset.untagged) == (photo not in tags)
        assert sample.mask is not None
        assert np.array_equal(sample.mask.read(), made.mask(photo))
        if photo in PLAIN:
            own, copied = made.run.files[photo], sample.image
            assert np.array_equal(read_photo(copied), read_photo(own))


def test_photos_held_out_have_tags_as_well(made: Made) -> None:
    data, folder = made.run.files["grey"].parents[1], made.run.folder
    (data / "splits" / "train.txt").write_text("plain\n")
    (data / "splits" / "val.txt").write_text("grey\nnothing\n")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["data"]["held_out"] = "val"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert open_run(folder).tags() == {"plain": (), "grey": CLASSES[:1]}


def command(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weakseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
