"""What a person says of photos is kept whole, and a run goes on with it."""

import os
from pathlib import Path

import numpy as np
import pytest

from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine.reviewed import DrawnStroke, Reviewed, Strokes
from weakseg.errors import WeaksegError
from weakseg.methods import KINDS
from weakseg.methods.base import Artefact
from weakseg.methods.fit import mask_pairs

MASK = np.eye(5, dtype=np.uint8)
DOT = DrawnStroke(name="background", points=[(1, 2)], radius=3)


@pytest.fixture
def reviewed(tmp_path: Path) -> Reviewed:
    return Reviewed.of(tmp_path)


def test_nothing_is_there_before_anything_is_said(reviewed: Reviewed) -> None:
    assert reviewed.strokes("a") == Strokes()
    assert (reviewed.mask("a"), reviewed.masks(["a"]), reviewed.tags) == (None, {}, {})
    assert not reviewed.folder.exists()


@pytest.mark.parametrize("photo", ["a", "folder/a.b"])
def test_strokes_and_masks_come_back_as_they_were(reviewed: Reviewed, photo: str) -> None:
    drawn = Strokes(strokes=[DOT], crf=False)
    reviewed.draw(photo, drawn, MASK)
    assert reviewed.strokes(photo) == drawn
    assert reviewed.mask(photo) == reviewed.mended(photo)
    reviewed.accept(photo, MASK * 2)
    path = reviewed.masks([photo, "other"])[photo]
    assert (read_mask(path) == MASK * 2).all()
    reviewed.reopen(photo)
    assert reviewed.mask(photo) == reviewed.mended(photo)
    reviewed.draw(photo, Strokes(), MASK)
    assert reviewed.mask(photo) is None


def test_a_stroke_is_of_a_class_or_of_the_background() -> None:
    classes = ["cat", "owl"]
    labels = [
        DOT.model_copy(update={"name": name}).stroke(classes).label for name in (DOT.name, *classes)
    ]
    assert labels == [0, 1, 2]
    with pytest.raises(WeaksegError) as caught:
        DOT.model_copy(update={"name": "dog"}).stroke(classes)
    assert str(caught.value) == "A stroke is of 'dog', which is no class of this run."


@pytest.mark.parametrize(
    ("file", "content", "holds"),
    [
        ("strokes/a.json", '{"strokes": [{"name": "cat"}]}', "strokes"),
        ("strokes/a.json", "[]", "strokes"),
        ("tags.json", '{"a": "cat"}', "tags"),
    ],
)
def test_a_file_of_another_shape_is_one_line(
    reviewed: Reviewed, file: str, content: str, holds: str
) -> None:
    path = reviewed.folder / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(WeaksegError) as caught:
        _ = (reviewed.strokes("a"), reviewed.tags)
    said = str(caught.value)
    assert said.startswith(f"{path} holds no {holds} (") and "\n" not in said
    assert said.endswith("Remove it to begin anew.")


def test_a_write_that_fails_leaves_what_was_there(
    reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewed.draw("a", Strokes(strokes=[DOT]), MASK)

    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WeaksegError, match="Free some space"):
        reviewed.draw("a", Strokes(strokes=[DOT, DOT]), MASK * 2)
    monkeypatch.undo()
    assert len(reviewed.strokes("a").strokes) == 1
    assert (read_mask(reviewed.mended("a")) == MASK).all()


def test_a_taught_mask_gives_way_to_one_that_was_made_since(reviewed: Reviewed) -> None:
    made = reviewed.folder.parent / "step"
    assert reviewed.taught_over("a", made) is None
    write_mask(made / "a.png", MASK)
    write_mask(reviewed.taught("a"), MASK)
    assert reviewed.taught_over("a", made) == reviewed.taught("a")
    os.utime(reviewed.taught("a"), ns=(0, 0))
    assert reviewed.taught_over("a", made) is None


def test_tags_of_a_review_take_the_place_of_the_datas(reviewed: Reviewed, photos: Path) -> None:
    dataset = load_dataset(photos, "all")
    assert reviewed.retagged(dataset) is dataset
    first = dataset.samples[0]
    reviewed.tag(first.id, dataset.classes[1::-1])
    found = reviewed.retagged(dataset)
    assert found.samples[0].tags == dataset.classes[:2]
    assert found.samples[1:] == dataset.samples[1:]
    assert "tags of 1 photos" in found.notes[-1]
    reviewed.tag(first.id, ["unicorn"])
    with pytest.raises(WeaksegError, match="'unicorn'"):
        reviewed.retagged(dataset)


def test_reviewed_masks_are_learned_in_place_of_a_steps(photos: Path, tmp_path: Path) -> None:
    first, second, *_ = load_dataset(photos, "all").samples
    pairs = mask_pairs(
        [first, second], [tmp_path, tmp_path / "other"], {first.id: Path("accepted.png")}
    )
    assert [mask for _, mask in pairs] == [
        (Path("accepted.png"),),
        (tmp_path / f"{second.id}.png", tmp_path / "other" / f"{second.id}.png"),
    ]


def test_every_kind_that_learns_from_masks_says_so() -> None:
    learning = {
        name
        for name, kind in KINDS.items()
        if kind.role == "network" and any(Artefact.MASKS in slot.accepts for slot in kind.takes)
    }
    assert {name for name, kind in KINDS.items() if kind.learns_masks} == learning
