"""Segment any photos with the network of a finished run."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from weakseg.data.formats.base import read_classes
from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.data.masks import CLASSES, write_classes
from weakseg.errors import WeaksegError
from weakseg.progress import Progress
from weakseg.stages import segment
from weakseg.stages.executor import Executor
from weakseg.stages.networks import read_segmenter_card


def run(
    model: Path,
    photos: Sequence[Path],
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
    tta: bool = False,
    scores: bool = False,
) -> int:
    """Write a mask for every photo, at the photo's own size, and what its ids mean: `classes.txt`.

    A photo's mask has its name; one from a folder keeps its place in that folder. A photo that
    can't be read is named and left out.

    Args:
        model: a run's folder, or a segmentation network's file.
        photos: files, and folders, which are searched with all that is in them.
        folder: where masks go; what is there under the same names is replaced.
        tta, scores: see `segment.segment_photos`.

    Returns:
        How many masks were written.

    Raises:
        WeaksegError: no such network or photo, no photo at all or none that can be read, two
            photos for one mask, a mask in the place of a photo, or a folder of other classes.
    """
    network = find_network(model)
    if network.name == segment.BEST_SO_FAR:
        progress.say(f"The training of {model} has not ended: this is its best epoch so far.")
    named = name_photos(photos)
    _check_targets(named, folder)
    classes = read_segmenter_card(network).classes
    if read_classes(folder / CLASSES) not in (None, classes):
        raise WeaksegError(
            f"{folder / CLASSES} names other classes than those of {network}. Choose another folder"
            " for the masks."
        )
    left_out = segment.segment_photos(
        network, list(named.items()), folder, executor, progress, device, tta, scores
    )
    if len(left_out) == len(named):
        raise WeaksegError(f"None of the {len(named)} photos can be read.")
    write_classes(folder, classes)
    return len(named) - len(left_out)


def find_network(model: Path) -> Path:
    """The segmentation network of a run's folder, or of its training so far, or the file itself.

    Raises:
        WeaksegError: if there is none.
    """
    network = model / segment.NETWORK / segment.SEGMENTER if model.is_dir() else model
    if (
        model.is_dir()
        and not network.is_file()
        and (so_far := network.with_name(segment.BEST_SO_FAR)).is_file()
    ):
        return so_far
    if not network.is_file():
        raise WeaksegError(
            f"There is no segmentation network {network}. Give the folder of a finished run whose "
            f"recipe has the section 'segment', or its {segment.SEGMENTER}."
        )
    return network


def name_photos(paths: Iterable[Path]) -> dict[str, Path]:
    """Photos by the name of their mask, which is their path without suffix.

    Raises:
        WeaksegError: a path that isn't there, no photo at all, or two photos of one name.
    """
    named: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise WeaksegError(f"There is no {path}. Give photos, or folders of photos.")
        for photo in _photos_in(path) if path.is_dir() else [path]:
            inner = photo.relative_to(path) if path.is_dir() else Path(photo.name)
            other = named.setdefault(str(inner.with_suffix("")), photo)
            if other != photo:
                raise WeaksegError(
                    f"{other} and {photo} would have the same mask. Rename one of them, or "
                    "segment them into two folders."
                )
    if not named:
        raise WeaksegError(
            f"There is no photo ({', '.join(sorted(PHOTO_SUFFIXES))}) in what was given."
        )
    return named


def _check_targets(named: dict[str, Path], folder: Path) -> None:
    photos = {photo.resolve() for photo in named.values()}
    for name in named:
        if (folder / f"{name}.png").resolve() in photos:
            raise WeaksegError(
                f"The mask {folder / name}.png would be written over a photo. Choose another "
                "folder."
            )


def _photos_in(folder: Path) -> list[Path]:
    """All photos below a folder, through links as well, each folder once."""
    found = []
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        paths = (Path(place) / name for name in files if name[0] != ".")
        found += [p for p in paths if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file()]
    return sorted(found)
