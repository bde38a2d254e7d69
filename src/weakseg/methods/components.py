"""Keep of a mask's connected pieces those with evidence, or those large enough."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import IGNORE
from weakseg.errors import WeaksegError
from weakseg.localize.seeds import mask_from_cam
from weakseg.methods.base import (
    Artefact,
    Kind,
    PhotoMask,
    Photos,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
)
from weakseg.methods.maps import labelled, open_class_maps, open_masks
from weakseg.methods.settings import Fraction, Section


class Components(Section):
    """Which pieces are kept, and what becomes of the others.

    Attributes:
        threshold: with a second input, those pieces stay that touch a pixel of which that is
            confident, of their class: where its masks have the class, or, with a threshold, where
            its maps are highest for it and above that.
        least_share: those stay that cover so much of the photo.
        passing: given both, whether a piece has to pass `all`, or `any` of them.
        others: what the pixels of the other pieces become.
    """

    threshold: Fraction | None = None
    least_share: Fraction = 0.0
    passing: Literal["all", "any"] = "all"
    others: Literal["background", "uncertain"] = "background"


def work(step: Step) -> PhotoWork:
    """Masks without the pieces that are not believed."""
    from weakseg.refine.components import keep_components

    masks, settings = open_masks(step["masks"]), step.settings
    confident = _open_confident(step)
    instead = IGNORE if settings.others == "uncertain" else 0

    def compute(task: PhotoTask) -> PhotoMask:
        return PhotoMask(
            keep_components(
                masks(task),
                confident(task) if confident else None,
                settings.least_share,
                settings.passing == "any",
                instead,
            )
        )

    return compute


def _open_confident(step: Step) -> Callable[[PhotoTask], NDArray[np.uint8]] | None:
    given, threshold = step.get("confident"), step.settings.threshold
    if given is None:
        return None
    if threshold is None:
        return open_masks(given)
    maps = open_class_maps(given)
    label = lambda band: mask_from_cam(band, threshold)  # noqa: E731
    return lambda task: labelled(maps(task).scores, task, label)


def _check(step: Step, photos: Photos, device: Any) -> None:
    given, settings = step.get("confident"), step.settings
    if given is None and not settings.least_share:
        raise WeaksegError(
            f"{step.name} keeps every piece: give it a least_share, or name a second step in `of` "
            "that is confident of pixels."
        )
    if settings.threshold is not None:
        step.check_rows("confident")
    wanted = Artefact.MASKS if settings.threshold is None else Artefact.MAPS
    if settings.threshold is not None and given is None:
        raise WeaksegError(
            f"{step.name}.threshold is one for maps: name the step that makes them in `of`, after "
            "the masks."
        )
    if given and wanted not in given.gives:
        remedy = "give a threshold" if wanted is Artefact.MASKS else "leave the threshold out"
        raise WeaksegError(f"{step.name}: {given.name} gives no {wanted.value}; {remedy}.")


def _protocol(step: Step) -> Mapping[str, Any]:
    given = step.get("confident")
    return {"confident": given.name} if given else {}


KIND = Kind(
    name="components",
    summary="of masks the connected pieces with evidence, or those large enough",
    settings=Components,
    gives=frozenset({Artefact.MASKS}),
    takes=(
        Slot("masks", frozenset({Artefact.MASKS})),
        Slot("confident", frozenset({Artefact.MAPS, Artefact.MASKS}), optional=True),
    ),
    role="refiner",
    work=work,
    check=_check,
    protocol=_protocol,
)
