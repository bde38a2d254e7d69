"""Maps and masks of one photo: as a step makes them, as files, and as another step reads them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import photo_size
from weakseg.data.masks import IGNORE, read_mask, write_mask
from weakseg.files import write_bytes, written_by_run
from weakseg.grid import upsampled_bands
from weakseg.localize.seeds import mask_from_cam
from weakseg.methods.base import Artefact, PhotoMaps, PhotoMask, PhotoTask, Step, naming

MAPS, MASK = ".safetensors", ".png"
"""Suffixes of a photo's files."""

SCORES = "scores"
"""The tensor that every file of maps has."""

Labels = Callable[[NDArray[np.float32]], NDArray[np.int16]]
"""Labels (rows, W), 0 (background), 1..K and -1 (uncertain), of maps (N, rows, W)."""


def suffixes(step: Step) -> tuple[str, ...]:
    """Of the files that a step writes of each photo."""
    maps = (MAPS,) if Artefact.MAPS in step.gives and not step.kind.reuses_maps else ()
    masks = (MASK,) if step.gives & {Artefact.MASKS, Artefact.OBJECTS} else ()
    return (*maps, *masks)


@dataclass(frozen=True)
class Writer:
    """Does a step's work of a photo, and writes what it gives."""

    step: Step

    def __call__(self) -> Callable[[PhotoTask], str | None]:
        step = self.step
        assert step.kind.work is not None
        work, written = step.kind.work(step), suffixes(step)

        def write(task: PhotoTask) -> str | None:
            with naming(task):
                result = work(task)
            said = None
            if MAPS in written:
                assert isinstance(result, PhotoMaps)
                found = {k: v for k, v in result._asdict().items() if v is not None}
                write_bytes(step.folder / f"{task.id}{MAPS}", safetensors.numpy.save(found))
            if MASK in written:
                ids, said = _mask_of(step, result, task)
                write_mask(step.folder / f"{task.id}{MASK}", ids)
            return said

        return write


def open_maps(step: Step, *parts: str) -> Callable[[PhotoTask], PhotoMaps]:
    """What reads a photo's maps, or computes them where the step isn't kept.

    Args:
        parts: names of the fields of `PhotoMaps` that are read beside the scores.
    """
    step = step.source
    if not step.kept:
        return _computed(step)

    return lambda task: read_maps(step, task.id, *parts)


def read_maps(step: Step, photo: str, *parts: str) -> PhotoMaps:
    """What a step wrote of a photo, by its id; see `open_maps`.

    Raises:
        WeaksegError: there is none, or it is damaged.
    """
    path = step.folder / f"{photo}{MAPS}"
    with written_by_run(path), safetensors.safe_open(path, "numpy") as file:
        return PhotoMaps(**{name: file.get_tensor(name) for name in (SCORES, *parts)})


def open_scores(step: Step) -> Callable[[PhotoTask], NDArray[np.float32]]:
    """What gives a photo's scores (K+1, h, w), row 0 the background, of maps or of masks.

    A mask's scores are 1 for a pixel's class, and where it is uncertain the same for all.
    """
    if Artefact.MAPS not in step.gives:
        masks = open_masks(step)
        return lambda task: _one_hot(masks(task), task.class_ids)
    background = step.background
    if background is None:
        maps = open_maps(step)
        return lambda task: maps(task).scores
    constant, class_maps = background, open_class_maps(step)
    return lambda task: against_background(class_maps(task).scores, constant)


def open_class_maps(step: Step, *parts: str) -> Callable[[PhotoTask], PhotoMaps]:
    """What `open_maps` gives, its scores maps (K, h, w) in [0, 1] of a photo's tags alone.

    Of maps with a background row it is how far each class is above that, over its maximum.
    """
    maps = open_maps(step, *parts)
    if not step.source.has_background_row:
        return maps

    def read(task: PhotoTask) -> PhotoMaps:
        found = maps(task)
        return found._replace(scores=over_background(found.scores))

    return read


def open_masks(step: Step) -> Callable[[PhotoTask], NDArray[np.uint8]]:
    """What reads a photo's mask, or computes it where the step isn't kept."""
    if step.kept:
        return lambda task: read_mask(step.folder / f"{task.id}{MASK}")
    assert step.kind.work is not None
    work = step.kind.work(step)
    return lambda task: _mask_of(step, work(task), task).ids


def against_background(maps: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Scores (K+1, h, w): maps (K, h, w) behind a background of constant score."""
    background = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.concatenate([background, maps])


def over_background(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps (K, h, w) in [0, 1]: how far scores (K+1, h, w) are above row 0, over the maximum."""
    above = np.maximum(scores[1:] - scores[:1], 0)
    peaks = above.max(axis=(1, 2), initial=0, keepdims=True)
    found: NDArray[np.float32] = above / np.where(peaks > 0, peaks, 1)
    return found


def class_mask(labels: NDArray[np.int16], class_ids: tuple[int, ...]) -> NDArray[np.uint8]:
    """Mask ids of labels 0 (background), 1..K (a photo's own tags) and -1 (uncertain: 255)."""
    ids = np.array([0, *class_ids, IGNORE], np.uint8)
    mask: NDArray[np.uint8] = ids[labels]
    return mask


def labelled(maps: NDArray[np.float32], task: PhotoTask, label: Labels) -> NDArray[np.uint8]:
    """A photo's mask, at its own size, by what `label` makes of the maps at that size.

    Args:
        maps: float32 (N, h, w) of any size.
    """
    height, width = photo_size(task.sample.image)
    mask = np.empty((height, width), np.uint8)
    for rows, band in upsampled_bands(maps, height, width):
        mask[rows] = class_mask(label(band), task.class_ids)
    return mask


def highest(scores: NDArray[np.float32]) -> NDArray[np.int16]:
    """The row of the highest of scores (N, rows, W), the first of equals."""
    labels: NDArray[np.int16] = scores.argmax(axis=0).astype(np.int16)
    return labels


def _computed(step: Step) -> Callable[[PhotoTask], PhotoMaps]:
    assert step.kind.work is not None
    work = step.kind.work(step)

    def compute(task: PhotoTask) -> PhotoMaps:
        found = work(task)
        assert isinstance(found, PhotoMaps)
        return found

    return compute


def _mask_of(step: Step, result: PhotoMaps | PhotoMask, task: PhotoTask) -> PhotoMask:
    if isinstance(result, PhotoMask):
        return result
    background = step.background
    if background is None:
        return PhotoMask(labelled(result.scores, task, highest))
    constant = background
    label: Labels = lambda band: mask_from_cam(band, constant)  # noqa: E731
    return PhotoMask(labelled(result.scores, task, label))


def _one_hot(mask: NDArray[np.uint8], class_ids: tuple[int, ...]) -> NDArray[np.float32]:
    ids = np.array((0, *class_ids), np.uint8).reshape(-1, 1, 1)
    scores: NDArray[np.float32] = (mask == ids).astype(np.float32)
    scores[:, mask == IGNORE] = 1 / len(ids)
    return scores
