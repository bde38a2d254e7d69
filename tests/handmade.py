"""A run's folder made by hand: photos and names of every odd kind, masks of every shape."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tiny import Lines
from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.opened import Run, open_run
from weakseg.engine.record import Record, write_record
from weakseg.export import EXPORTERS
from weakseg.export.choose import Choice
from weakseg.export.write import export
from weakseg.recipe import check_recipe, dump_recipe

CLASSES = ("cat", '<b>dog</b> & "wolf"; a/b', "búho ☂")


def _turned(path: Path, rgb: np.ndarray) -> None:
    """Lies on its side in the file, and EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(rgb).copy()).save(path, exif=exif, quality=95)


def _in_16_bits(path: Path, rgb: np.ndarray) -> None:
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(path)


def _converted(mode: str) -> Callable[[Path, np.ndarray], None]:
    return lambda path, rgb: Image.fromarray(rgb).convert(mode).save(path)


PHOTOS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "plain.jpg": _converted("RGB"),
    "grey.jpg": _converted("L"),
    "cmyk.jpg": _converted("CMYK"),
    "turned.jpg": _turned,
    "deep.png": _in_16_bits,
    "clear.png": _converted("RGBA"),
    "palette.gif": _converted("P"),
    "two words.v2 100%.png": _converted("RGB"),
    "<i>ü;&#x.jpg": _converted("RGB"),
    "nothing.webp": _converted("RGB"),
}
PLAIN = ("plain", "grey", "two words.v2 100%", "<i>ü;&#x")
"""Ids of the photos that are copied as they are."""

TAGS = dict(
    zip(
        PHOTOS,
        [(), CLASSES[:1], CLASSES[1:2], CLASSES[2:], CLASSES[:2], CLASSES[1:], *[CLASSES] * 3],
        strict=False,
    )
)
"""Of each photo but the last, which nobody tagged."""


def mask_of(index: int, height: int, width: int) -> np.ndarray:
    """Of each photo another: a ring with a core, parts that touch by corners, uncertain pixels."""
    mask = np.zeros((height, width), np.uint8)
    if index == len(PHOTOS) - 1:
        return mask
    mask[2:12, 3:17] = 1 + index % 3
    mask[4:9, 5:10] = 0
    mask[6, 6:8] = 1 + (index + 1) % 3
    mask[12:16, 17:21] = 1 + index % 3
    mask[:3, -4:] = 1 + (index + 2) % 3
    mask[-1, :2] = 1
    if index % 2:
        mask[-3:, -5:] = 255
    return mask


@dataclass(frozen=True)
class Made:
    """A run made by hand, and what is exported of it."""

    run: Run
    said: list[str]

    def export(self, format: str, out: Path | None = None, choice: Choice = Choice()) -> Path:  # noqa: B008
        lines = Lines()
        place = export(self.run, EXPORTERS[format], out, choice, InProcessExecutor(), lines)
        self.said[:] = [line for line in lines.said if not line.startswith("export")]
        return place

    def mask(self, photo: str) -> np.ndarray:
        return self.run.mask(photo, "given")

    def certain(self, photo: str) -> np.ndarray:
        mask = self.mask(photo)
        return np.where(mask == 255, 0, mask)

    @property
    def samples(self) -> list[Sample]:
        return [Sample(name, path, (), None) for name, path in self.run.files.items()]

    def accept(self, photo: str, mask: np.ndarray) -> None:
        write_mask(self.run.folder / "review" / "accepted" / f"{photo}.png", mask)

    def trust(self, step: str, **photos: float) -> None:
        content = {"step": step, "photos": {k: {"confidence": v} for k, v in photos.items()}}
        (self.run.folder / "confidence.json").write_text(json.dumps(content))


def make_run(folder: Path) -> Made:
    """A run in `run/` of the tagged photos in `data/`, whose only step is called given."""
    data, out = folder / "data", folder / "run"
    (data / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, (name, save) in enumerate(PHOTOS.items()):
        rgb = rng.integers(0, 256, (24, 20 + 3 * index, 3), dtype=np.uint8)
        rgb[0, 0] = 255
        save(data / "images" / name, rgb)
        size = read_photo(data / "images" / name).shape[:2]
        stem = name.rpartition(".")[0]
        write_mask(out / "given" / f"{stem}.png", mask_of(index, *size))
    write_tags(data)
    write_record(
        out,
        Record(
            data={
                "folder": str(data),
                "format": "tagged-folder",
                "split": "train",
                "photos": len(PHOTOS),
                "classes": list(CLASSES),
            },
            steps={},
        ),
    )
    steps = {"given": {"kind": "folder", "path": "/masks", "holds": "masks"}}
    recipe = check_recipe({"data": {"split": "train"}, "steps": steps}, "given")
    (out / "recipe.yaml").write_text(dump_recipe(recipe))
    return Made(open_run(out), [])


def write_tags(data: Path) -> None:
    (data / "splits").mkdir()
    (data / "splits" / "train.txt").write_text("".join(f"{name}\n" for name in PHOTOS))
    (data / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    with (data / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", *CLASSES])
        for photo, tags in TAGS.items():
            table.writerow([photo, *(int(name in tags) for name in CLASSES)])


def saved_as(path: Path, mask: np.ndarray) -> bytes:
    """What a mask is as a file."""
    write_mask(path, mask)
    assert np.array_equal(read_mask(path), mask)
    return path.read_bytes()
