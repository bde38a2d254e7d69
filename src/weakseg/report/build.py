"""Writes a run's page, `report/index.html`."""

import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from numpy.typing import NDArray

from weakseg import stores
from weakseg.data.dataset import Sample
from weakseg.data.masks import BACKGROUND, hex_colour
from weakseg.engine.confidence import read_confidence
from weakseg.engine.context import mask_steps
from weakseg.engine.fingerprints import digest_of
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError
from weakseg.files import read_json, write_atomically
from weakseg.methods.base import Executor, PhotoTask, task_of
from weakseg.names import FIGURES
from weakseg.progress import Progress
from weakseg.recipe import dump_recipe
from weakseg.report.charts import confusions, curves_of, line
from weakseg.report.thumbnails import Drawer, Drawn
from weakseg.tables import class_cells, describe_protocol
from weakseg.version import VERSION

NAME = "report"
PAGE = Path(NAME, "index.html")
"""In a run's folder."""

PAGE_PHOTOS = 10_000
"""Photos on one page: 60 MB of them open within a second. Further ones are on further pages."""

_CHUNK = 100  # photos whose pictures are one element, parsed when one of them is shown
_MADE_OF = re.compile(r'<meta name="made-of" content="(\w+)">')
_HEAD = 1024  # bytes of a page in which that stands


class _Photo(NamedTuple):
    sample: Sample
    split: str

    def task(self, classes: Sequence[str]) -> PhotoTask:
        return task_of(self.sample, classes)


def build(run: Run, executor: Executor, progress: Progress) -> Path:
    """Write the page of a run, as far as that is; of more than `PAGE_PHOTOS` photos, several.

    Args:
        run: its data set is read where it was.
        executor: draws the photos.

    Returns:
        The first page.

    Raises:
        WeaksegError: there are no masks yet, or the data set is not there any more.
    """
    steps, ids = [], dict[str, set[str]]()
    for step in mask_steps(run.steps.values()):
        if its := run.photos(step.name):
            steps.append(step)
            held_out = run.recipe.data.held_out if step.kind.photos == "held out" else None
            ids.setdefault(held_out or run.record.data["split"], set()).update(its)
    if not steps:
        raise WeaksegError(f"{run.folder} has no masks yet: the report needs some.")
    photos = _photos(run, ids)
    last = (mask_steps(steps, held_out=False) or steps)[-1]
    pages = [photos[i : i + PAGE_PHOTOS] for i in range(0, len(photos), PAGE_PHOTOS)]
    folder = run.folder / NAME
    names = [PAGE.name, *(f"page-{number}.html" for number in range(2, len(pages) + 1))]
    drawer = Drawer(tuple(s.folder for s in steps), last.folder, run.classes)
    sure = {photo: entry.classes for photo, entry in read_confidence(run.folder)[1]}
    counts = np.zeros((len(run.classes) + 1, len(run.classes) + 2), np.int64)
    template = _environment().get_template("page.html")
    with progress.track(NAME, len(photos)) as advance:
        # The first page has the figures of all photos, and so comes last.
        for number in reversed(range(len(pages))):
            drawn = []
            for one in executor.map(drawer, [photo.task(run.classes) for photo in pages[number]]):
                drawn.append(one)
                if one.counts is not None:
                    counts += one.counts
                advance(1)
            values = {
                "run": run,
                "masks": last.name,
                "version": VERSION,
                "made_of": _made_of(run),
                "pages": names,
                "page": number,
                "table": {
                    "steps": [step.name for step in steps],
                    "last": [step.name for step in steps].index(last.name),
                    **_table(run, pages[number], drawn, sure, folder),
                },
                "chunks": _chunks(drawn),
                "figures": _figures(run, last.name, counts) if number == 0 else None,
            }
            with write_atomically(folder / names[number], durable=True) as temporary:
                template.stream(values).dump(str(temporary), encoding="utf-8")
    return folder / names[0]


def page_of(run: Run) -> Path | None:
    """The page of a run, if it is of what the run holds now."""
    page = run.folder / PAGE
    if not page.is_file():
        return None
    stores.bring(page)
    with page.open(encoding="utf-8") as file:
        found = _MADE_OF.search(file.read(_HEAD))
    return page if found and found[1] == _made_of(run) else None


def _made_of(run: Run) -> str:
    steps = {name: (step.fingerprint, step.finished) for name, step in run.record.steps.items()}
    return digest_of(VERSION, steps, dump_recipe(run.recipe))


def _photos(run: Run, ids: Mapping[str, set[str]]) -> list[_Photo]:
    """The photos of each split with some ids, under that split."""
    found = []
    for split, its in ids.items():
        samples = run.dataset(split, untagged=True).samples
        found += [_Photo(sample, split) for sample in samples if sample.id in its]
    if not found:
        raise WeaksegError(
            f"None of the photos that {run.folder} has masks of is in "
            f"{run.record.data['folder']} any more."
        )
    return found


def _table(
    run: Run,
    photos: Sequence[_Photo],
    drawn: Sequence[Drawn],
    sure: Mapping[str, Mapping[str, float]],
    folder: Path,
) -> dict[str, Any]:
    """What the page's script reads: names, and a row of each photo; shares are in thousandths."""
    splits = list(dict.fromkeys(photo.split for photo in photos))
    rows = []
    for photo, one in zip(photos, drawn, strict=True):
        task = photo.task(run.classes)
        classes = sure.get(task.id)
        names = [run.classes[class_id - 1] for class_id in task.class_ids]
        rows.append(
            [
                task.id,
                splits.index(photo.split),
                task.class_ids,
                None if classes is None else [_thousandths(classes.get(n)) for n in names],
                [[_thousandths(value) for value in of_step] for of_step in one.iou],
                one.size[::-1],
                _link(task.sample.image, folder),
                [int(made) for made in (*one.made, one.truth)],
            ]
        )
    return {
        "classes": run.classes,
        "colours": [hex_colour(mask_id) for mask_id in range(len(run.classes) + 1)],
        "splits": splits,
        "truth": any(one.truth for one in drawn),
        "chunk": _CHUNK,
        "photos": rows,
    }


def _thousandths(share: float | None) -> int | None:
    return None if share is None else round(1000 * share)


def _link(image: Path, folder: Path) -> str:
    """Where a photo is, as the page names it; another drive has no relative path."""
    try:
        return quote(Path(os.path.relpath(image, folder)).as_posix())
    except ValueError:
        return image.as_uri()


def _chunks(drawn: Sequence[Drawn]) -> Iterator[str]:
    """Lines of a photo and its masks, in base64, some at a time."""
    for start in range(0, len(drawn), _CHUNK):
        yield "\n".join(
            f"{b64encode(one.photo).decode()} {b64encode(one.masks).decode()}"
            for one in drawn[start : start + _CHUNK]
        )


def _figures(run: Run, masks: str, counts: NDArray[np.int64]) -> dict[str, Any]:
    """What the page says of the run as a whole."""
    rows = [{**row, "how": describe_protocol(row)} for row in run.figures]
    own = [row for row in rows if row["per_class"] and row["split"] == run.record.data["split"]]
    last = next((row for row in own if row["name"] == masks), None)
    told = run.reliability
    return {
        "rows": rows,
        "last": last,
        "first": own[0] if last and own[0] is not last else None,
        "confusions": confusions(counts, (BACKGROUND, *run.classes)),
        "reliability": told,
        "surer": line([entry["miou"] for entry in told["surer"]], 220, 72) if told else None,
        "curves": [
            curve
            for name, step in run.steps.items()
            if (step.folder / FIGURES).is_file()
            for curve in curves_of(name, read_json(step.folder / FIGURES))
        ],
        "times": [(name, step.seconds) for name, step in run.record.steps.items()],
        "assessment": list(class_cells(run.assessment)),
        "recipe": dump_recipe(run.recipe),
    }


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("weakseg.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
