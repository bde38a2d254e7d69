"""The pictures of docs/how-it-works.md: what each step makes of two generated photos."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

import weakseg
from weakseg.data.images import read_photo
from weakseg.data.synth import generate
from weakseg.drawing import Picture, draw_panel, overlay_heat, overlay_mask
from weakseg.grid import upsample

_PHOTOS, _SEED = 60, 0
_SHOWN = ("000000", "000005")
_TAGS = ("car", "cat", "snail")  # of these
_EVERY = 5  # so that both get masks, and few others
_LEFT_OUT = ("cam+crf", "segmenter", "segment", "segment+tta")
_MASKS = {"threshold": "cam", "seed": "seed", "svm": "svm", "crf": "svm+crf"}
"""Name of a picture -> the step whose masks it shows."""

_HEIGHT, _WIDTH = 200, 240

Column = tuple[str, Picture]


def draw_pictures(folder: Path, working: Path) -> None:
    """Run the recipe `demo` on generated photos and draw what its steps make.

    Args:
        folder: where the pictures go.
        working: where photos and run go; a new folder.
    """
    photos = working / "photos"
    generate(photos, _PHOTOS, _SEED)
    overrides = ["data.split=all", "data.held_out=null", f"data.every={_EVERY}", "report.panels=0"]
    overrides += [f"{step}=null" for step in _LEFT_OUT]
    run = weakseg.run("demo", photos, working / "run", overrides, workers=1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in _pictures(run).items():
        shown = [(caption, _fitted(picture)) for caption, picture in columns]
        legend = (
            [] if name in ("photo", "cam") else [(tag, run.classes.index(tag) + 1) for tag in _TAGS]
        )
        draw_panel(shown, legend).save(folder / f"{name}.png", optimize=True)


def _pictures(run: weakseg.Run) -> Mapping[str, list[Column]]:
    """Of each picture its columns, by its name."""
    samples = {sample.id: sample for sample in run.dataset("all").samples}
    found: dict[str, list[Column]] = {name: [] for name in ("photo", "cam", *_MASKS, "truth")}
    for name in _SHOWN:
        sample, photo = samples[name], read_photo(samples[name].image)
        tags = [tag for tag in run.classes if tag in sample.tags]
        caption = ", ".join(tags)
        found["photo"].append((caption, photo))
        scores = upsample(run.maps(name, "localize").scores, *photo.shape[:2])
        found["cam"] += [
            (tag, overlay_heat(photo, row)) for tag, row in zip(tags, scores, strict=True)
        ]
        for picture, step in _MASKS.items():
            found[picture].append((caption, overlay_mask(photo, run.mask(name, step))))
        assert sample.mask
        found["truth"].append((caption, overlay_mask(photo, sample.mask.read())))
    return found


def _fitted(picture: Picture) -> Picture:
    """On a white ground of one size."""
    image = Image.fromarray(picture)
    image.thumbnail((_WIDTH, _HEIGHT))
    ground = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    ground.paste(image)
    return np.asarray(ground)
