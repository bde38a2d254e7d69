"""Several maps or masks as one: their mean, their maximum, or what they agree on."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from weakseg.data.masks import IGNORE, agreement
from weakseg.errors import WeaksegError
from weakseg.grid import upsample
from weakseg.methods.base import (
    Artefact,
    Gives,
    Kind,
    PhotoMaps,
    PhotoMask,
    Photos,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
    first_cell,
)
from weakseg.methods.maps import open_class_maps, open_masks, open_scores
from weakseg.methods.settings import Section


class Combine(Section):
    """How several are made one.

    Attributes:
        how: `mean` and `maximum`: of maps as they are, on the first one's grid; with masks among
            them all have a background, and a mask's scores are 1 and 0. `agreement`: masks, 255
            where they differ. `fill`: the first's masks, their background filled by the others, one
            after the other; `first`: the same of what they leave unknown (255).
        weights: of a mean, what each input counts; all alike by default. Scores of different
            ranges, such as logits and walked maps, need them.
    """

    how: Literal["mean", "maximum", "agreement", "fill", "first"]
    weights: tuple[Annotated[float, Field(ge=1e-3, le=1e3)], ...] | None = None

    @model_validator(mode="after")
    def _weights_are_a_means(self) -> Self:
        if self.weights is not None and self.how != "mean":
            raise ValueError(f"weights are for how: mean, not {self.how}")
        return self


def work(step: Step) -> PhotoWork:
    """Maps, or masks, as `Combine` says."""
    inputs = [given for _, given in step.inputs]
    if join := _OF_MASKS.get(step.settings.how):
        masks = [open_masks(given) for given in inputs]
        return lambda task: PhotoMask(join([read(task) for read in masks]))
    if Artefact.MASKS in step.gives:
        scores = [open_scores(given) for given in inputs]
    else:
        scores = [_class_maps(given) for given in inputs]
    settings = step.settings
    merge = np.max if settings.how == "maximum" else partial(np.average, weights=settings.weights)

    def compute(task: PhotoTask) -> PhotoMaps:
        first, *others = (read(task) for read in scores)
        alike = [first, *(_resized(other, first) for other in others)]
        return PhotoMaps(merge(np.stack(alike), axis=0).astype(np.float32, copy=False))

    return compute


def _class_maps(step: Step) -> Callable[[PhotoTask], NDArray[np.float32]]:
    maps = open_class_maps(step)
    return lambda task: maps(task).scores


def _resized(maps: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(maps) != len(like):
        raise ValueError(f"maps of {len(maps)} and of {len(like)} classes can't be combined")
    return maps if maps.shape == like.shape else upsample(maps, *like.shape[1:])


def _filled(masks: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    first, *others = masks
    for other in others:
        empty = (first == 0) & (other != IGNORE)
        first[empty] = other[empty]
    return first


def _first_known(masks: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    first, *others = masks
    for other in others:
        unknown = first == IGNORE
        first[unknown] = other[unknown]
    return first


_OF_MASKS = {"agreement": agreement, "fill": _filled, "first": _first_known}


def _gives(step: Step) -> Gives:
    given = [one.gives for _, one in step.inputs]
    if step.settings.how in _OF_MASKS:
        return frozenset({Artefact.MASKS})
    if any(Artefact.MASKS in one for one in given):
        return frozenset({Artefact.MAPS, Artefact.MASKS})
    return frozenset({Artefact.MAPS})


def _check(step: Step, photos: Photos, device: Any) -> None:
    weights = step.settings.weights
    if weights is not None and len(weights) != len(step.inputs):
        raise WeaksegError(
            f"{step.name}.weights has {len(weights)} numbers for {len(step.inputs)} inputs: give "
            "one for each."
        )
    if step.settings.how not in _OF_MASKS:
        step.check_rows("inputs")
    needs_masks = step.settings.how in _OF_MASKS or Artefact.MASKS in step.gives
    bare = [one.name for _, one in step.inputs if Artefact.MASKS not in one.gives]
    if needs_masks and bare:
        raise WeaksegError(
            f"{step.name}: {bare[0]} has no background, where others have one: name a step of kind "
            "threshold over it instead."
        )


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"of": [one.name for _, one in step.inputs]}


KIND = Kind(
    name="combine",
    summary="several maps or masks as one: mean, maximum, agreement, or what one lacks filled",
    settings=Combine,
    gives=_gives,
    takes=(Slot("inputs", frozenset({Artefact.MAPS, Artefact.MASKS}), several=True),),
    role="refiner",
    work=work,
    cell=first_cell,
    check=_check,
    protocol=_protocol,
)
