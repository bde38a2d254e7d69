import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import Lines, tiny_recipe
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.masks import write_classes, write_mask
from weakseg.engine import evaluate
from weakseg.engine.context import Context
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.tables import describe_protocol


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos whose left halves are cat (1) and dog (2), and masks that say so."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "tags.csv").write_text("image,tags\na,cat\nb,dog\n")
    for number, name in enumerate("ab", start=1):
        Image.new("RGB", (4, 3)).save(root / "images" / f"{name}.png")
        mask = np.zeros((3, 4), np.uint8)
        mask[:, :2] = number
        for place in (root, tmp_path):
            write_mask(place / "masks" / f"{name}.png", mask)
    return root


def row(folder: Path, **options: Any) -> dict[str, Any]:
    return evaluate.evaluate_folder(
        folder.parent / "masks",
        load_dataset(folder),
        "all",
        InProcessExecutor(),
        Lines(),
        **options,
    )


def test_photos_without_a_prediction_are_refused_or_skipped_and_counted(folder: Path) -> None:
    assert "skipped" not in row(folder)["protocol"]
    assert row(folder, skip_missing=True)["protocol"]["skipped"] == 0
    (folder.parent / "masks" / "a.png").unlink()
    with pytest.raises(WeaksegError, match=r"no mask for 1 of 2 .*a\.png.* --missing skip"):
        row(folder)
    found = row(folder, skip_missing=True)
    assert (found["images"], found["miou"], found["protocol"]["skipped"]) == (1, 1, 1)
    assert "1 photos without a prediction skipped" in describe_protocol(found)
    (folder.parent / "masks" / "b.png").unlink()
    with pytest.raises(WeaksegError, match="no mask for 2 of 2"):
        row(folder, skip_missing=True)


def test_a_photo_that_can_not_be_read_is_left_out_with_its_true_mask(folder: Path) -> None:
    photo = folder / "images" / "a.png"
    photo.write_bytes(b"no photo")
    lines = Lines()
    found = evaluate.evaluate_folder(
        folder.parent / "masks", load_dataset(folder), "all", InProcessExecutor(), lines
    )
    assert (found["images"], found["left_out"], found["miou"]) == (1, 1, 1)
    (line,) = lines.said[:1]
    assert line.startswith(f"left out: 1 of 2 true masks, such as: {photo} can't be read")


def test_dropped_classes_are_background(folder: Path) -> None:
    write_mask(folder.parent / "masks" / "b.png", np.zeros((3, 4), np.uint8))
    assert row(folder)["miou"] == pytest.approx((18 / 24 * 0 + 12 / 18 + 1 + 0) / 3)
    found = row(folder, dropped=["dog"])
    assert found["miou"] == 1
    assert found["per_class"] == {"background": 1, "cat": 1}
    assert found["protocol"]["dropped"] == ["dog"]
    assert "dropped, so background: dog" in describe_protocol(found)
    with pytest.raises(WeaksegError, match=r"Unknown class 'dgo'. Did you mean 'dog'"):
        row(folder, dropped=["dgo"])


@pytest.mark.parametrize("number", [3, 4, 254])
def test_a_predicted_id_of_no_class_is_refused_by_name(folder: Path, number: int) -> None:
    path = folder.parent / "masks" / "b.png"
    mask = np.zeros((3, 4), np.uint8)
    mask[0, 0] = number
    write_mask(path, mask)
    with pytest.raises(WeaksegError) as caught:
        row(folder)
    assert str(caught.value) == (
        f"{path} can't be compared with {folder / 'masks' / 'b.png'}: the prediction has the ids"
        f" [{number}]; expected 0 to 2, and 255."
    )


def test_a_prediction_in_colours_of_its_own_is_refused_by_name(folder: Path) -> None:
    image = Image.fromarray(np.zeros((3, 4), np.uint8))
    image.putpalette(bytes([200, 100, 50]) * 2)
    image.save(folder.parent / "masks" / "b.png")
    with pytest.raises(WeaksegError, match=r"b\.png can't be read: its palette is not VOC's"):
        row(folder)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog"], None),
        (["dog", "cat"], "calls id 1 'dog', the data set 'cat'"),
        (["cat"], "calls id 2 'nothing', the data set 'dog'"),
        (["cat", "dog", "cow"], "calls id 3 'cow', the data set 'nothing'"),
    ],
)
def test_masks_of_other_classes_are_refused(
    folder: Path, classes: list[str], message: str | None
) -> None:
    write_classes(folder.parent / "masks", classes)
    if message is None:
        assert row(folder)["miou"] == 1
    else:
        with pytest.raises(WeaksegError, match=message):
            row(folder)


def of_one_class(folder: Path, number: int) -> Path:
    (folder / "classes.txt").write_text("cat\n")
    (folder / "tags.csv").write_text("image,tags\na,cat\nb,\n")
    mask = np.zeros((3, 4), np.uint8)
    write_mask(folder / "masks" / "b.png", mask)
    for place in (folder, folder.parent):
        write_mask(place / "masks" / "b.png", mask)
    mask[:, :2] = number
    write_mask(folder / "masks" / "a.png", mask)
    return folder


@pytest.mark.parametrize("number", [255, 128])
def test_a_number_stands_for_the_only_class_where_it_is_asked_for(
    folder: Path, number: int
) -> None:
    data = of_one_class(folder, number)
    if number == 255:
        with pytest.raises(
            WeaksegError,
            match=r"The 2 true masks of split 'all' have the ids 0 and 255 \(ignored\) alone, .* "
            r"If 255 stands for 'cat': weakseg evaluate --foreground 255\.",
        ):
            row(data)
    found = row(data, foreground=number)
    assert (found["images"], found["miou"]) == (2, 1)
    assert found["protocol"]["foreground"] == number
    assert f"{number} is the class" in describe_protocol(found)
    write_mask(folder.parent / "masks" / "a.png", np.zeros((3, 4), np.uint8))
    assert row(data, foreground=number)["per_class"]["cat"] == 0


def test_a_number_can_not_stand_for_several_classes(folder: Path) -> None:
    with pytest.raises(WeaksegError, match=r"this one has 2\. Write each class as its id"):
        row(folder, foreground=255)
    for path in (folder / "masks").iterdir():
        write_mask(path, np.full((3, 4), 255, np.uint8))
    with pytest.raises(WeaksegError, match=r"perfect\. Write each class as its id, from 1 on"):
        row(folder)


def test_a_mask_may_have_its_photos_place(tmp_path: Path) -> None:
    """As `weakseg predict` writes it, of a data set's folder or of one in it."""
    root, masks = tmp_path / "data", tmp_path / "masks"
    for number, name in enumerate(("car", "cat"), start=1):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 3), (number, 0, 0)).save(root / name / "000000.jpg")
        mask = np.full((3, 4), number, np.uint8)
        write_mask(root / "masks" / f"{name}_000000.png", mask)
        write_mask(masks / name / "000000.png", mask)
    dataset = load_dataset(root)
    assert [s.id for s in dataset.samples] == ["car_000000", "cat_000000"]

    def found(**options: Any) -> dict[str, Any]:
        return evaluate.evaluate_folder(
            masks, dataset, "all", InProcessExecutor(), Lines(), **options
        )

    assert (found()["images"], found()["miou"]) == (2, 1)
    shutil.move(masks / "car" / "000000.png", masks / "000000.png")
    assert found(skip_missing=True)["protocol"]["skipped"] == 1


def sampled(root: Path, *places: str) -> Dataset:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / place)
        write_mask(root / "masks" / f"{Path(place).stem}.png", np.full((3, 4), 1, np.uint8))
    names = ",cat\n".join(Path(place).stem for place in places)
    (root / "tags.csv").write_text(f"image,tags\n{names},cat\n")
    return load_dataset(root)


def test_a_mask_may_have_its_photos_place_below_the_photos_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    dataset = sampled(root, "Data/DET/val/a.jpg")
    for place in ("Data/DET/val/a.png", "DET/val/a.png"):
        masks = tmp_path / place.replace("/", "-")
        write_mask(masks / place, np.full((3, 4), 1, np.uint8))
        row = evaluate.evaluate_folder(masks, dataset, "all", InProcessExecutor(), Lines())
        assert row["miou"] == 1


def test_a_run_measures_without_the_classes_that_it_drops(
    finished: Path, photos: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(photos)
    name = dataset.samples[0].tags[0]

    def rows(**changes: Any) -> list[dict[str, Any]]:
        recipe = tiny_recipe(**dict.fromkeys(("cam+crf", "seed", "svm+crf")), **changes)
        executor = InProcessExecutor()
        context = Context(
            folder=tmp_path,
            recipe=recipe,
            steps=recipe.build(finished),
            dataset=dataset,
            held_out=dataset,
            cpu=executor,
            network=executor,
            progress=Lines(),
            device=torch.device("cpu"),
        )
        found = {
            step.name: step.kind.then(step, context.photos(step))
            for step in context.steps
            if step.kind.then
        }
        evaluate.run(replace(context, seen=found))
        written: list[dict[str, Any]] = read_json(tmp_path / evaluate.METRICS)["stages"]
        return written

    everything, without = rows(), rows(data={"drop_classes": [name]})
    assert [row["name"] for row in without] == ["cam", "cam-oracle", "svm"]
    for before, after in zip(everything, without, strict=True):
        assert name in before["per_class"] and name not in after["per_class"]
        assert "dropped" not in before["protocol"] and after["protocol"]["dropped"] == [name]
        values = [value for value in after["per_class"].values() if value is not None]
        assert after["miou"] == pytest.approx(np.mean(values))
    alone = {"kind": "tags", "only": [name]}
    assert rows(data={"drop_classes": [name]}, alone=alone) == everything
