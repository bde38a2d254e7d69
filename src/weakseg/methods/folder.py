"""Masks or maps that another tool made, from a folder."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
from numpy.typing import NDArray
from pydantic import model_validator

from weakseg.data.check import read_usable
from weakseg.data.dataset import Sample
from weakseg.data.formats.base import check_classes
from weakseg.data.images import UnreadablePhoto, open_image, photo_size, read_photo
from weakseg.data.masks import CLASSES, IGNORE, MaskFile, UnreadableMask
from weakseg.data.mended import TOOLS, find_tool
from weakseg.data.mended.base import Find
from weakseg.data.places import mask_files, stems, with_files
from weakseg.errors import WeaksegError, listed, quoted
from weakseg.files import usable
from weakseg.localize.seeds import as_cam
from weakseg.methods.base import (
    Artefact,
    Gives,
    Kind,
    PhotoMaps,
    PhotoMask,
    Photos,
    PhotoTask,
    PhotoWork,
    Step,
    photo_cell,
)
from weakseg.methods.maps import SCORES
from weakseg.methods.settings import FilePath, Section

_MOST_BYTES = 2**30
"""Of a photo's maps. An npz file of some kilobytes may inflate to any size."""


class Folder(Section):
    """What a folder holds of every photo.

    `masks`: `ID.png`, 0 the background, 255 unknown (of a scribble most is), the ids of the data
    set's classes. Or what a tool gave back in which masks were drawn or mended: a JSON file of
    COCO's or Label Studio's, a folder of CVAT's or YOLO's (`weakseg.data.mended`).

    `maps`: values in [0, 1], of any size, each covering the whole photo. `ID.safetensors` or
    `ID.npz` has one array, or one called `scores`: (K, h, w) of the photo's tags in the classes'
    order, or (C, h, w) of all classes. Or there is a PNG for each tag, 8-bit grey, 255 as 1:
    `ID_TAG.png` or `TAG/ID.png`.

    In place of the id a file may have the photo's place (`weakseg.data.places`). Where a
    `classes.txt` lies in the folder it has to name the data set's classes.

    Attributes:
        path: the folder, or a tool's file.
        holds: what is in it.
        missing: what becomes of photos that it holds no mask of: they are refused before the run,
            or their masks are `unknown`, 255 everywhere.
    """

    path: FilePath
    holds: Literal["masks", "maps"]
    missing: Literal["refuse", "unknown"] = "refuse"

    @model_validator(mode="after")
    def _masks_alone(self) -> "Folder":
        if self.missing == "unknown" and self.holds == "maps":
            raise ValueError("missing: unknown is for masks; maps have no value for it")
        return self


def work(step: Step) -> PhotoWork:
    """The mask or the maps of a photo, once they are known to be such.

    A pickle in an `.npz` is refused, never opened.
    """
    folder = Path(step.settings.path)

    find: Find | None = None

    def read_mask(task: PhotoTask) -> PhotoMask:
        nonlocal find
        find = find or _masks_in(folder, task.names)
        size = photo_size(task.sample.image)
        if not (found := find(task.sample)):
            if step.settings.missing == "unknown":
                return PhotoMask(np.full(size, IGNORE, np.uint8))
            raise _missing(step, [task.sample], 1)
        try:
            return PhotoMask(read_usable(found[0], size, task.classes))
        except UnreadableMask as error:
            raise WeaksegError(
                f"{step.name}: {error} A mask has its photo's size, and of ids 0, 1 to "
                f"{task.classes} and 255."
            ) from error

    def read_maps(task: PhotoTask) -> PhotoMaps:
        files = _map_files(folder, task.sample)
        if not files and not _needs_none(step, task.sample):
            raise _missing(step, [task.sample], 1)
        return PhotoMaps(_maps_of(files, task))

    return read_mask if step.settings.holds == "masks" else read_maps


def _masks_in(path: Path, classes: tuple[str, ...]) -> Find:
    """Finds photos' masks, in a folder of PNG files or in what a tool gave back."""
    if tool := find_tool(path):
        return tool.open(path, classes)
    return lambda sample: [MaskFile.of(file) for file in mask_files(path, sample)]


def _map_files(folder: Path, sample: Sample) -> Sequence[Path]:
    """One file of all maps of a photo, or one for each tag, or none."""
    for stem in stems(sample):
        for suffix in (".safetensors", ".npz"):
            if (path := folder / f"{stem}{suffix}").exists():
                return [path]
        beside = [folder / f"{stem}_{tag}.png" for tag in sample.tags]
        within = [folder / tag / f"{stem}.png" for tag in sample.tags]
        for paths in (beside, within):
            if paths and all(path.exists() for path in paths):
                return paths
    return []


def _needs_none(step: Step, sample: Sample) -> bool:
    return step.settings.holds == "maps" and not sample.tags


def _maps_of(files: Sequence[Path], task: PhotoTask) -> NDArray[np.float32]:
    """Float32 (K, h, w) in [0, 1]."""
    if not files:
        return np.zeros((0, 1, 1), np.float32)
    first = files[0]
    if first.suffix == ".png":
        grey = [_read_grey(path) for path in files]
        for path, one in zip(files, grey, strict=True):
            with _refusing(path):
                if one.shape != grey[0].shape:
                    raise ValueError(
                        f"it has height and width {one.shape}, and {first.name} {grey[0].shape}"
                    )
        maps = np.stack(grey)
    else:
        with _refusing(first):
            maps = _chosen(_read_array(first), task)
    with _refusing(first):
        height, width = photo_size(task.sample.image)
        if maps.shape[1:] == (width, height) != (height, width):
            raise ValueError(f"its maps lie on their side: the photo is {height} by {width}")
        return as_cam(maps)


def _chosen(array: NDArray[Any], task: PhotoTask) -> NDArray[Any]:
    """The maps of a photo's tags, of an array of these or of all classes."""
    if array.dtype.kind != "f" or array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"its array is {array.dtype} {array.shape}, no float (K, h, w)")
    if len(array) == len(task.class_ids):
        return array
    if len(array) == task.classes:
        return array[[class_id - 1 for class_id in task.class_ids]]
    raise ValueError(
        f"it has {len(array)} maps, where the photo has {len(task.class_ids)} tags and there are "
        f"{task.classes} classes (the background has no map)"
    )


def _read_array(path: Path) -> NDArray[Any]:
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "numpy") as tensors:
            found: NDArray[Any] = tensors.get_tensor(_name_of(list(tensors.keys())))
            return found
    arrays = np.load(path, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError("it is no npz file")
    with arrays:
        name = _name_of(arrays.files)
        assert arrays.zip is not None
        if (size := arrays.zip.getinfo(f"{name}.npy").file_size) > _MOST_BYTES:
            raise ValueError(f"its array has {size:,} bytes, over {_MOST_BYTES:,}")
        return np.asarray(arrays[name])


def _name_of(names: Sequence[str]) -> str:
    if SCORES in names:
        return SCORES
    if len(names) != 1:
        raise ValueError(f"it has {len(names)} arrays ({listed(names, 5)}), none called {SCORES}")
    return names[0]


def _read_grey(path: Path) -> NDArray[np.float32]:
    with open_image(path, ("PNG",), WeaksegError) as image:
        if image.mode != "L":
            raise ValueError(f"it has mode {image.mode}, where a map is 8-bit grey (L)")
        return np.asarray(image, np.float32) / np.float32(255)


def _refusing(path: Path) -> AbstractContextManager[None]:
    return usable(
        path,
        "Write it anew: values in [0, 1], a map for each of the photo's tags or for each class.",
    )


def _check(step: Step, photos: Photos, device: Any) -> None:
    folder = Path(step.settings.path)
    masks = step.settings.holds == "masks"
    if not folder.is_dir() and not (masks and find_tool(folder)):
        tools = f", or {listed([tool.summary for tool in TOOLS])}" if masks else ""
        raise WeaksegError(
            f"{step.name}.path: there is no folder {folder}. Give one of masks or maps{tools}."
        )
    check_classes(folder / CLASSES, photos.classes)
    needed = [sample for sample in photos.samples if not _needs_none(step, sample)]
    if masks:
        find: Callable[[Sample], Sequence[object]] = _masks_in(folder, photos.classes)
    else:
        find = partial(_map_files, folder)
    found = with_files(needed, find)
    missing = [sample for sample in needed if sample.id not in found]
    if step.settings.missing == "unknown" and found:
        missing = list(filter(find, missing))  # one file of several photos
    # What can't be read is left out later; no more is decoded than tells that one can.
    if asked := list(dropwhile(_is_unreadable, missing)):
        raise _missing(step, asked, len(needed))


def _is_unreadable(sample: Sample) -> bool:
    try:
        read_photo(sample.image)
    except UnreadablePhoto:
        return True
    return False


def _missing(step: Step, missing: Sequence[Sample], needed: int) -> WeaksegError:
    holds = step.settings.holds
    names = "ID.safetensors, ID.npz, ID_TAG.png or TAG/ID.png"
    if holds == "masks":
        given = find_tool(Path(step.settings.path))
        names = "ID.png" if given is None else "each photo by its name"
    unknown = ", or set missing: unknown" if holds == "masks" and len(missing) < needed else ""
    return WeaksegError(
        f"{step.name}: {step.settings.path} has no {holds} of {len(missing)} of {needed} photos, "
        f"the first with the ID {quoted(missing[0].id)}; expected {names}, each of one photo. Make "
        f"them, or leave these photos out of the split{unknown}."
    )


def _gives(step: Step) -> Gives:
    return frozenset({Artefact.MASKS if step.settings.holds == "masks" else Artefact.MAPS})


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"folder": step.settings.path, "crf": None}


KIND = Kind(
    name="folder",
    summary="masks or maps that another tool made, from a folder",
    settings=Folder,
    gives=_gives,
    role="seed",
    work=work,
    cell=photo_cell,
    check=_check,
    protocol=_protocol,
)
