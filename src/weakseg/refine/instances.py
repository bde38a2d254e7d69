"""Instances of a class from displacements to their centres (Ahn et al. 2019, IRN, section 5.1).

For use on what `weakseg.networks.irnet.relate` gives; no stage writes instances yet.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_DOUBLINGS = 8


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
    maps: NDArray[np.float32], instances: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Split each class's map into one for every instance on which it isn't 0.

    Args:
        maps: (K, h, w), at least 0.
        instances: (h, w), 1 to M, 0 for none.

    Returns:
        float32 (J, h, w), by class and then by instance, and the classes, (J,) of 0 to K-1. Their
        sum is that of the maps where there is an instance.
    """
    pairs = [
        (index, instance)
        for index, class_map in enumerate(maps)
        for instance in np.unique(instances[(class_map > 0) & (instances > 0)])
    ]
    split = np.empty((len(pairs), *instances.shape), np.float32)
    for row, (index, instance) in zip(split, pairs, strict=True):
        row[:] = maps[index] * (instances == instance)
    return split, np.array([index for index, _ in pairs], np.intp)
