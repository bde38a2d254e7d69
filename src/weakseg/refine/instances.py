"""Instances of a class from displacements to their centres (Ahn et al. 2019, IRN, section 5.1).

For use on what `weakseg.networks.irnet.relate` gives.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from weakseg.data.masks import MAX_OBJECTS

_DOUBLINGS = 8
_BAND = 2**20  # pixels that are split at once: as int64 they take eight times a mask's memory


def instance_map(displacement: NDArray[np.float32], threshold: float = 2.5) -> NDArray[np.int32]:
    """Which centre every cell belongs to, whatever its class.

    From each cell the displacements are followed, 256 of them, rounded to cells and kept on the
    grid, so that a displacement that falls short of its centre is made up for by those on its way.
    Where they end is where displacements are shorter than `threshold`; each connected region (by
    sides) of such cells is one centre. Rounding is ours: IRN interpolates between cells, which
    makes a difference only to displacements far under the threshold.

    Args:
        displacement: (2, h, w), from a cell to its instance's centre: rows, columns, in cells;
            finite.
        threshold: in cells, > 0.

    Returns:
        int32 (h, w): 1 to M, by the order in which the centres' first cells come, or 0 for a cell
        that leads to no centre.

    Raises:
        ValueError: an argument is not as said.
    """
    if displacement.ndim != 3 or len(displacement) != 2 or displacement.size == 0:
        raise ValueError(f"displacement has shape {displacement.shape}; expected (2, h, w)")
    if not np.isfinite(displacement).all():
        raise ValueError("displacement holds NaN or infinity; expected finite numbers")
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; expected a number > 0")
    size = displacement.shape[1:]
    end = np.indices(size) + np.rint(displacement)
    limits = np.array(size).reshape(2, 1, 1) - 1
    rows, columns = np.clip(end, 0, limits).astype(np.intp)
    target = (rows * size[1] + columns).ravel()
    for _ in range(_DOUBLINGS):
        target = target[target]
    centres, count = ndimage.label(np.hypot(*displacement) < threshold)
    reached = centres.ravel()[target]
    numbers = np.zeros(count + 1, np.int32)
    used = np.unique(reached[reached > 0])
    numbers[used] = np.arange(1, len(used) + 1)
    found: NDArray[np.int32] = numbers[reached].reshape(size)
    return found


def split_by_instance(
    mask: NDArray[np.uint8], instances: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], int]:
    """Split a mask into objects: the pixels of one class that belong to one instance.

    Args:
        mask: uint8 (H, W), 0 background, 1 to 254 the classes.
        instances: int32 (h, w), 1 to M, 0 for none, of any size: a pixel has that of the cell which
            it lies in.

    Returns:
        uint8 (H, W), 1 to at most `MAX_OBJECTS`, by class and then by instance, and 0 where there
        is no class or no instance; and how many objects were left out, the smallest of too many.
    """
    rows, columns = (
        (2 * np.arange(side) + 1) * cells // (2 * side)
        for side, cells in zip(mask.shape, instances.shape, strict=True)
    )
    count = int(instances.max()) + 1
    step = max(1, _BAND // mask.shape[1])
    bands = [slice(first, first + step) for first in range(0, len(mask), step)]

    def pairs(band: slice) -> NDArray[np.int64]:
        found: NDArray[np.int64] = mask[band].astype(np.int64) * count
        found += instances[rows[band]][:, columns]
        return found

    shape = int(mask.max()) + 1, count
    pixels = np.zeros(shape, np.int64)
    for band in bands:
        pixels += np.bincount(pairs(band).ravel(), minlength=pixels.size).reshape(shape)
    pixels[0], pixels[:, 0] = 0, 0
    sizes = pixels.ravel()
    found = np.flatnonzero(sizes)
    kept = np.sort(found[np.argsort(-sizes[found], kind="stable")[:MAX_OBJECTS]])
    numbers = np.zeros(sizes.size, np.uint8)
    numbers[kept] = np.arange(1, len(kept) + 1)
    objects = np.empty_like(mask)
    for band in bands:
        objects[band] = numbers[pairs(band)]
    return objects, len(found) - len(kept)
