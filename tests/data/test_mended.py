"""Masks as other tools write them, and what is said of those that can't be used."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weakseg.data.brush import encode_brush
from weakseg.data.dataset import Sample
from weakseg.data.masks import TrueMask
from weakseg.data.mended import find_tool
from weakseg.errors import WeaksegError

CLASSES = ("cat", "dog")
MASK = np.array([[0, 1, 1, 1], [2, 2, 1, 1], [2, 2, 0, 0]], np.uint8)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = tmp_path / "images" / "a b.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 3)).save(path)
    return Sample("a b", path, ("cat",), None)


def masks(path: Path, sample: Sample) -> Sequence[TrueMask]:
    tool = find_tool(path)
    assert tool
    return tool.open(path, CLASSES)(sample)


def read(path: Path, sample: Sample) -> np.ndarray:
    return masks(path, sample)[0].read()


def coco(folder: Path, category: str = "dog", width: int = 4) -> Path:
    """As CVAT writes masks: crowds in numbers, categories in an order of its own."""
    content = {
        "images": [{"id": 5, "file_name": "x/a b.png", "height": 3, "width": width}],
        "categories": [{"id": 1, "name": category}, {"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": number,
                "image_id": 5,
                "category_id": category_id,
                "iscrowd": 1,
                "segmentation": {"size": [3, 4], "counts": counts},
            }
            for number, category_id, counts in (
                (1, 1, [1, 2, 1, 2, 6]),
                (2, 2, [3, 1, 2, 2, 1, 2, 1]),
            )
        ],
    }
    path = folder / "instances_default.json"
    path.write_text(json.dumps(content))
    return path


def cvat(folder: Path, name: str = "dog", colours: str = "0,128,0") -> Path:
    """Its labels in an order and in colours of its own."""
    (folder / "SegmentationClass").mkdir()
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", f"{name}:{colours}::"]
    (folder / "labelmap.txt").write_text("\n".join([*lines, "cat:9,8,7::", ""]))
    rgb = np.array([[0, 0, 0], [9, 8, 7], [0, 128, 0]], np.uint8)[MASK]
    Image.fromarray(rgb).save(folder / "SegmentationClass" / "a b.png")
    return folder


def task(*regions: tuple[str, np.ndarray], **changes: Any) -> dict[str, Any]:
    drawn = [
        {
            "type": "brushlabels",
            "original_height": 3,
            "original_width": 4,
            "value": {"format": "rle", "rle": encode_brush(region), "brushlabels": [name]},
            **changes,
        }
        for name, region in regions
    ]
    result = [{key: value for key, value in one.items() if value is not ...} for one in drawn]
    address = "/data/local-files/?d=some/where/a%20b.png"
    return {"id": 7, "data": {"about": "it", "image": address}, "annotations": [{"result": result}]}


def studio(folder: Path, *tasks: dict[str, Any]) -> Path:
    path = folder / "project-1.json"
    path.write_text(json.dumps(tasks or [task(("cat", MASK > 0), ("dog", MASK == 2))]))
    return path


def yolo(folder: Path, name: str = "dog", line: str = "") -> Path:
    (folder / "labels" / "part").mkdir(parents=True)
    (folder / "data.yaml").write_text(f"names: [{name}, cat]\n")
    pieces = [
        "0 0 .333333 .5 .333333 .5 1 0 1",
        "1 .25 0 1 0 1 .666667 .5 .666667 .5 .333333 .25 .333333",
    ]
    (folder / "labels" / "part" / "a b.txt").write_text("\n".join([*pieces, line]))
    return folder


def panoptic(folder: Path, segments: Any) -> Path:
    (folder / "panoptic").mkdir()
    Image.fromarray(np.dstack([MASK, 0 * MASK, 0 * MASK])).save(folder / "panoptic" / "a b.png")
    annotation = {"file_name": "a b.png", "segments_info": segments}
    content = {"categories": [{"id": 1, "name": "cat"}], "annotations": [annotation]}
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("write", [coco, cvat, studio, yolo])
def test_each_tool_gives_the_same_mask(
    tmp_path: Path, sample: Sample, write: Callable[[Path], Path]
) -> None:
    assert np.array_equal(read(write(tmp_path), sample), MASK)


def test_a_later_stroke_lies_over_an_earlier_one(tmp_path: Path, sample: Sample) -> None:
    drawn = task(("dog", MASK > 0), ("cat", MASK == 1))
    drawn["annotations"].append({"result": [], "was_cancelled": True})
    assert np.array_equal(read(studio(tmp_path, drawn), sample), MASK)


def test_a_task_without_regions_is_background_and_one_without_annotation_no_mask(
    tmp_path: Path, sample: Sample
) -> None:
    assert not read(studio(tmp_path, task()), sample).any()
    assert not masks(studio(tmp_path, {**task(), "annotations": []}), sample)


def test_uploads_keep_their_name_behind_what_the_tool_puts_before(
    tmp_path: Path, sample: Sample
) -> None:
    uploaded = task(("cat", MASK == 1))
    uploaded["data"] = {"image": "/data/upload/3/0a1b2c3d-a b.png"}
    assert np.array_equal(read(studio(tmp_path, uploaded), sample), MASK == 1)


@pytest.mark.parametrize("write", [coco, cvat, yolo])
def test_a_class_of_its_own(tmp_path: Path, sample: Sample, write: Callable[..., Path]) -> None:
    with pytest.raises(
        WeaksegError, match=r"data set lacks. Unknown class 'dgo'. Did you mean 'dog'"
    ):
        read(write(tmp_path, "dgo"), sample)


SQUARE = {"original_height": 4}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: cvat(folder, colours="1,1,1"), "has the colour 0,128,0, which labelmap"),
        (lambda folder: cvat(folder, colours="red"), "line 3 can't be used; expected NAME:R,G,B::"),
        (lambda folder: studio(folder, task(("dgo", MASK == 1))), "Unknown class 'dgo'"),
        (
            lambda folder: studio(folder, task(("dog", MASK == 1), type="polygonlabels")),
            "task '7' has a region of polygonlabels, where only the brush",
        ),
        (
            lambda folder: studio(folder, task(("dog", MASK == 1), **SQUARE)),
            r"has height and width \(4, 4\), its photo \(3, 4\)",
        ),
        (
            lambda folder: studio(folder, task(("dog", MASK[:2] == 1))),
            "can't be used: a brush's run lengths are not those of 3 by 4",
        ),
        (lambda folder: studio(folder, {"image": "a.png"}), 'no tasks. Export it .* as "JSON"'),
        (
            lambda folder: yolo(folder, line="0 .5 .5 .2 .2"),
            "line 3 can't be used: expected a class",
        ),
        (lambda folder: yolo(folder, line="7 0 0 1 0 1 1"), "line 3 can't be used"),
        (lambda folder: yolo(folder, line="-1 0 0 1 0 1 1"), "line 3 can't be used: -1 is not in"),
        (
            lambda folder: studio(folder, task(("dog", MASK == 1), original_height=...)),
            "a b.png.* can't be used: it has no 'original_height'",
        ),
        (
            lambda folder: studio(folder, task(("dog", MASK == 1), value={"brushlabels": ["dog"]})),
            "can't be used: it has no 'rle'",
        ),
        (lambda folder: panoptic(folder, [{"id": 1}]), "can't be used: it has no 'category_id'"),
        (lambda folder: panoptic(folder, 3), "can't be used: 'int' object is not iterable"),
    ],
)
def test_what_can_not_be_used(
    tmp_path: Path, sample: Sample, write: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(WeaksegError, match=message):
        read(write(tmp_path), sample)


def test_other_files_are_of_no_tool(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"stages": []}')
    for path in (tmp_path, tmp_path / "metrics.json", tmp_path / "nowhere.json"):
        assert find_tool(path) is None


def test_no_line_of_a_file_makes_a_message_long(tmp_path: Path, sample: Sample) -> None:
    with pytest.raises(WeaksegError) as caught:
        read(yolo(tmp_path, line="0" + " x" * 50_000), sample)
    assert len(str(caught.value)) < 1000
