"""The connected pieces of a mask that are believed: those with evidence, or those large enough."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from weakseg.data.masks import IGNORE

_EIGHT = np.ones((3, 3), np.uint8)


def keep_components(
    mask: NDArray[np.uint8],
    confident: NDArray[np.uint8] | None = None,
    least_share: float = 0.0,
    either: bool = False,
    instead: int = 0,
) -> NDArray[np.uint8]:
    """Keep the pieces of each class that pass; a piece is connected by sides or corners.

    A piece passes if it has a pixel that `confident` gives the same class, and covers
    `least_share` of the mask at least; with `either` one of the two will do. What is not asked
    for (`confident` None, or `least_share` 0) takes no part.

    Args:
        mask: uint8 (H, W), 0 background, 1 to 254 the classes, 255 unknown.
        confident: uint8 (H, W), likewise.
        least_share: in [0, 1].
        instead: what the others become, 0 or 255.

    Returns:
        uint8 (H, W); what was background or unknown stays so.

    Raises:
        ValueError: an argument is not as said.
    """
    if confident is not None and confident.shape != mask.shape:
        raise ValueError(
            f"confident pixels have shape {confident.shape}; expected the mask's, {mask.shape}"
        )
    if not 0 <= least_share <= 1:
        raise ValueError(f"least_share is {least_share}; expected a number in [0, 1]")
    kept = mask.copy()
    for class_id, place in enumerate(ndimage.find_objects(mask), start=1):
        if place is None or class_id == IGNORE:
            continue
        pieces, count = ndimage.label(mask[place] == class_id, _EIGHT)
        tests = []
        if confident is not None:
            reached = pieces[confident[place] == class_id]
            tests.append(np.bincount(reached, minlength=count + 1) > 0)
        if least_share:
            tests.append(np.bincount(pieces.ravel()) >= least_share * mask.size)
        if not tests:
            continue
        passed = np.any(tests, axis=0) if either else np.all(tests, axis=0)
        passed[0] = True
        kept[place][~passed[pieces]] = instead
    return kept
