"""Masks of any photos by tags alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import Lines
from weakseg.data.formats.base import read_classes
from weakseg.data.masks import read_mask
from weakseg.engine import label
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError


def labelled(photos: list[Path], tags: list[str], out: Path) -> tuple[Run, Lines]:
    lines = Lines()
    done = label.run(photos, tags, out, InProcessExecutor(), lines, torch.device("cpu"))
    return done, lines


@pytest.fixture
def some(photos: Path, tmp_path: Path) -> Path:
    """A photo, one in a folder below, and one that is none."""
    folder = tmp_path / "some"
    (folder / "below").mkdir(parents=True)
    for source, name in zip(
        sorted((photos / "JPEGImages").iterdir()), ("one.jpg", "below/one.jpg"), strict=False
    ):
        with Image.open(source) as photo:
            photo.resize((96, 80)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_every_photo_that_can_be_read_gets_a_mask_under_its_name(
    some: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done, lines = labelled([some], ["cat", "fish"], out)
    assert done.classes == ("cat", "fish")
    for name in ("one", "below/one"):
        mask = read_mask(out / f"{name}.png")
        assert mask.shape == (80, 96) and set(np.unique(mask)) <= {0, 1, 2}
        np.testing.assert_array_equal(mask, done.mask(name))
        assert (out / "run" / "panels" / f"{name}.jpg").is_file()
        assert done.files[name] == some / f"{name}.jpg"
    assert read_classes(out / "classes.txt") == ("cat", "fish")
    assert not (out / "broken.png").exists()
    assert any("broken.jpg" in line for line in lines.said)
    assert not any(line.startswith("tags: ") for line in lines.said)
    again = labelled([some], ["cat", "fish"], out)[1].said
    assert "cam+crf: up to date" in again
    with pytest.raises(WeaksegError, match="names other classes than the tags dog"):
        labelled([some], ["dog"], out)
    (some / "one.jpg").unlink()
    there = {sample.id: sample.tags for sample in done.dataset().samples}
    assert there == dict.fromkeys(("below/one", "broken"), ("cat", "fish"))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ([], "There is no tag"),
        (["cat", "gizmo"], "no class for 'gizmo'"),
        ([" "], "no class for ''"),
        (["sofa", "cat", "couch"], "'sofa' and 'couch' are the same to ImageNet"),
        (["background"], "is no tag"),
    ],
)
def test_tags_that_no_mask_can_have_are_refused(
    tags: list[str], reason: str, some: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeaksegError, match=reason):
        label.tagged_photos([some], tags, tmp_path / "out")


def test_places_that_would_mix_photos_and_masks_are_refused(some: Path) -> None:
    with pytest.raises(WeaksegError, match="Choose a folder outside"):
        label.tagged_photos([some], ["cat"], some / "masks")
    with pytest.raises(WeaksegError, match="There is no"):
        label.tagged_photos([some / "nowhere"], ["cat"], some / "masks")
    png = some / "two.png"
    shutil.copy(some / "one.jpg", png)
    with pytest.raises(WeaksegError, match="would be written over a photo"):
        label.tagged_photos([png], ["cat"], some)
