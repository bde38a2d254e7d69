"""Masks of any photos for tags that they all have, without training (recipe `tags_alone`)."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch

from weakseg.data.contents import class_faults
from weakseg.data.dataset import Dataset, Sample
from weakseg.data.imagenet import match_tags
from weakseg.data.masks import write_classes
from weakseg.engine import runner
from weakseg.engine.opened import FILES, Run, open_run
from weakseg.engine.predict import check_targets, name_photos
from weakseg.errors import WeaksegError, listed, quoted
from weakseg.files import read_bytes, write_bytes, write_json
from weakseg.methods.base import Executor
from weakseg.methods.maps import MASK
from weakseg.progress import Progress
from weakseg.recipe import load_recipe

RECIPE = "tags_alone"
RUN = "run"
"""The run's folder, in that of the masks."""


def run(
    photos: Sequence[Path],
    tags: Sequence[str],
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
) -> Run:
    """Write `NAME.png` for every photo, and what its ids mean: `classes.txt`.

    A photo's mask has its name; one from a folder keeps its place in that folder. A photo that
    can't be read is named and left out. The run's own folder, `run/`, is beside the masks: the same
    call again goes on with it.

    Args:
        photos: files, and folders, which are searched with all that is in them.
        tags: what is in the photos, in all of them; the classes, in the order of their ids.
        folder: where masks go; what is there under the same names is replaced.

    Raises:
        WeaksegError: see `tagged_photos` and `weakseg.engine.runner.run_on`.
    """
    dataset = tagged_photos(photos, tags, folder)
    recipe = load_recipe(RECIPE, [f"report.panels={len(dataset.samples)}"])
    runner.run_on(dataset, dataset, recipe, folder / RUN, executor, progress, device)
    write_json(folder / RUN / FILES, {sample.id: str(sample.image) for sample in dataset.samples})
    done = open_run(folder / RUN)
    for name in done.photos(done.masks):
        write_bytes(folder / f"{name}{MASK}", read_bytes(done.mask_file(name)))
    write_classes(folder, dataset.classes)
    return done


def tagged_photos(photos: Sequence[Path], tags: Sequence[str], folder: Path) -> Dataset:
    """A data set of photos that have all of some tags.

    Args:
        folder: where masks are to go.

    Raises:
        WeaksegError: no photo, two photos for one mask, a mask in the place of a photo or among
            them, a folder with masks of other classes; no tag, tags that can't be classes, that
            ImageNet knows nothing of, or that are the same to it.
    """
    classes = tuple(dict.fromkeys(" ".join(tag.split()) for tag in tags))
    if not classes:
        raise WeaksegError("There is no tag. Say what is in the photos: --tag cat, for example.")
    for fault in class_faults(classes):
        raise WeaksegError(fault)
    for one, other in combinations(match_tags(classes), 2):
        if one.outputs == other.outputs:
            raise WeaksegError(
                f"{quoted(one.tag)} and {quoted(other.tag)} are the same to ImageNet: {one}. Give "
                "one of them."
            )
    for place in photos:
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise WeaksegError(
                f"The next time, the masks in {folder} would be taken for photos of {place}. "
                "Choose a folder outside."
            )
    named = name_photos(photos)
    check_targets(named, folder, classes, f"the tags {listed(classes)}")
    samples = tuple(Sample(name, path, classes, None) for name, path in named.items())
    return Dataset(photos[0], "photos", classes, samples, untagged=(), missing=())
