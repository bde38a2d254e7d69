"""Pieces of masks as a step: by masks or maps that are confident, by size, or by both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny import Start
from weakseg.data.masks import read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.recipe import Recipe, check_recipe

#           a large piece, and one of four pixels, of class 1; of class 2 one of two pixels
MASK = np.array(
    [
        [1, 1, 1, 1, 0, 0, 255, 0],
        [1, 1, 1, 1, 0, 1, 1, 0],
        [1, 1, 1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)
LARGE = np.where(np.arange(8) < 4, MASK, 0) * (MASK == 1)
SMALL = np.where(np.arange(8) > 4, MASK, 0) * (MASK == 1)
OTHER = MASK * (MASK == 2)
UNKNOWN = MASK * (MASK == 255)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A photo of a cat and a dog, in `masks/` MASK and in `sure/` a pixel of the small piece."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "tags.csv").write_text("image,tags\na,cat;dog\n")
    Image.new("RGB", (8, 5)).save(root / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", MASK)
    sure = np.full_like(MASK, 255)
    sure[1, 5], sure[4, 1] = 1, 1  # of the other class's piece as well
    write_mask(tmp_path / "sure" / "a.png", sure)
    maps = np.zeros((2, 5, 8), np.float32)
    maps[0, 1, 5], maps[1, 4, 1], maps[0, 1, 1] = 0.9, 0.8, 0.3
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "a.npz", maps)
    return root


def recipe(folder: Path, of: list[str], **settings: Any) -> Recipe:
    steps = {
        name: {"kind": "folder", "path": str(folder / name), "holds": holds}
        for name, holds in (("masks", "masks"), ("sure", "masks"), ("maps", "maps"))
    }
    parts = {"kind": "components", "of": of, **settings}
    return check_recipe({"data": {"split": "all"}, "steps": {**steps, "parts": parts}}, "parts")


@pytest.mark.parametrize(
    ("of", "settings", "kept"),
    [
        (["masks"], {"least_share": 0.1}, LARGE + SMALL),
        (["masks"], {"least_share": 0.11}, LARGE),
        (["masks", "sure"], {}, SMALL),
        (["masks", "maps"], {"threshold": 0.5}, SMALL + OTHER),
        (["masks", "maps"], {"threshold": 0.2}, LARGE + SMALL + OTHER),
        (["masks", "maps"], {"threshold": 0.5, "least_share": 0.1}, SMALL),
        (["masks", "maps"], {"threshold": 0.5, "least_share": 0.2, "passing": "any"}, MASK),
    ],
)
@pytest.mark.parametrize("others", ["background", "uncertain"])
def test_what_is_kept(
    data: Path,
    start: Start,
    tmp_path: Path,
    of: list[str],
    settings: dict[str, Any],
    kept: np.ndarray,
    others: str,
) -> None:
    out = tmp_path / "out"
    start(data, out, recipe(tmp_path, of, others=others, **settings))
    expected = np.maximum(kept, UNKNOWN)
    if others == "uncertain":
        expected = np.where((MASK > 0) & (expected == 0), 255, expected)
    assert np.array_equal(read_mask(out / "parts" / "a.png"), expected)


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (["masks"], {}, "parts keeps every piece: give it a least_share"),
        (["masks"], {"threshold": 0.5}, "keeps every piece"),
        (
            ["masks"],
            {"threshold": 0.5, "least_share": 0.5},
            "name the step that makes them in `of`",
        ),
        (["masks", "sure"], {"threshold": 0.5}, "sure gives no maps; leave the threshold out"),
        (["masks", "maps"], {}, "maps gives no masks; give a threshold"),
    ],
)
def test_steps_that_can_not_be_done(
    data: Path, start: Start, tmp_path: Path, of: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeaksegError, match=message):
        start(data, tmp_path / "out", recipe(tmp_path, of, **settings))
    assert not (tmp_path / "out").exists()
