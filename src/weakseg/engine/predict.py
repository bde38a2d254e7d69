"""Segment any photos with the network of a finished run."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from weakseg import stores
from weakseg.data.formats.base import read_classes
from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.data.masks import CLASSES, write_classes
from weakseg.engine.executor import network_executor
from weakseg.errors import WeaksegError, unknown_name
from weakseg.methods.base import Artefact, Executor, Step
from weakseg.methods.deeplab import BEST_SO_FAR, SEGMENTER
from weakseg.methods.segment import CRF, ONNX, TTA, Segment, Views, segment_photos
from weakseg.progress import Progress
from weakseg.recipe import RECIPE, Recipe, load_recipe


def run(
    model: Path,
    photos: Sequence[Path],
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: str,
    tta: bool = False,
    scores: bool = False,
    crf: bool = False,
) -> int:
    """Write a mask for every photo, at the photo's own size, and what its ids mean: `classes.txt`.

    A photo's mask has its name; one from a folder keeps its place in that folder. A photo that
    can't be read is named and left out.

    Args:
        model: a run's folder, a segmentation network's file, or one that `weakseg export` made of
            it, which needs no PyTorch.
        photos: files, and folders, which are searched with all that is in them.
        folder: where masks go; what is there under the same names is replaced.
        device: where the network runs, as torch names it; of an ONNX file the CPU alone.
        tta: average over the scales and mirror images that the run's own test-time augmentation
            has, or else over `weakseg.methods.segment.TTA`.
        scores: see `weakseg.methods.segment.segment_photos`.
        crf: have a dense CRF draw the masks along the photos' edges: the run's own, or else
            `weakseg.methods.segment.CRF`.

    Returns:
        How many masks were written.

    Raises:
        WeaksegError: no such network or photo, no photo at all or none that can be read, two
            photos for one mask, a mask in the place of a photo, or a folder of other classes.
    """
    network = find_network(model)
    if network.name == BEST_SO_FAR:
        progress.say(f"The training of {model} has not ended: this is its best epoch so far.")
    named = name_photos(photos)
    classes, usual = _described(network, model)
    check_targets(named, folder, classes, f"those of {network}")
    seen = usual if tta else Segment()
    settings = seen.model_copy(update={"crf": usual.crf if crf else None})
    left_out = segment_photos(
        network,
        list(named.items()),
        folder,
        network_executor(executor, device),
        progress,
        device,
        settings,
        scores,
    )
    if len(left_out) == len(named):
        raise WeaksegError(f"None of the {len(named)} photos can be read.")
    write_classes(folder, classes)
    return len(named) - len(left_out)


def _described(network: Path, model: Path) -> tuple[tuple[str, ...], Segment]:
    """The classes of a network's file, its test-time augmentation and its CRF."""
    if network.suffix == ONNX:
        from weakseg.segment.onnx import read_card as read_onnx_card

        card = read_onnx_card(network)
        return card.classes, Segment(scales=card.tta_scales, flip=card.tta_flip, crf=CRF)
    from weakseg.methods.networks import read_segmenter_card

    return read_segmenter_card(network).classes, usual_settings(model)


def find_network(model: Path, step: str | None = None) -> Path:
    """The last segmentation network of a run's folder, or of its training so far; or the file.

    Args:
        step: the name of the one that is wanted, if a run's folder has several.

    Raises:
        WeaksegError: if there is none.
    """
    if not model.is_dir():
        found = [model]
    else:
        networks = {one.name: one.folder for one in _networks(model)}
        if step is not None and step not in networks:
            raise unknown_name(f"network of {model}", step, networks)
        folders = [networks[name] for name in reversed(networks) if step in (None, name)]
        found = [folder / name for folder in folders for name in (SEGMENTER, BEST_SO_FAR)]
    network = next((file for file in found if file.is_file()), None)
    if network is None:
        raise WeaksegError(
            f"There is no segmentation network {found[0] if found else f'in {model}'}. Give the "
            "folder of a finished run whose recipe has a step of kind deeplab, or its "
            f"{SEGMENTER}."
        )
    stores.bring(network)
    return network


def _networks(run: Path) -> list[Step]:
    """The steps of a run that train a segmentation network."""
    steps = _recipe(run).build(run) if (run / RECIPE).is_file() else ()
    return [step for step in steps if Artefact.SEGMENTER in step.gives]


def usual_settings(model: Path) -> Segment:
    """A run's own test-time augmentation and CRF, or else the usual ones."""
    steps = _recipe(model).build(model) if model.is_dir() else ()
    own = [step.settings for step in reversed(steps) if isinstance(step.settings, Views)]
    views = next((one for one in own if not one.one), TTA)
    crfs = (one.crf for one in own if isinstance(one, Segment) and one.crf)
    return Segment(scales=views.scales, flip=views.flip, crf=next(crfs, CRF))


def _recipe(run: Path) -> Recipe:
    return load_recipe(str(run / RECIPE))


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


def check_targets(
    named: dict[str, Path], folder: Path, classes: tuple[str, ...], whose: str
) -> None:
    """Refuse a folder for masks where ids mean other classes, or a photo would be written over.

    Args:
        whose: which classes these are, for the message.

    Raises:
        WeaksegError: either.
    """
    if read_classes(folder / CLASSES) not in (None, classes):
        raise WeaksegError(
            f"{folder / CLASSES} names other classes than {whose}. Choose another folder for the "
            "masks."
        )
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
