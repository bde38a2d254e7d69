"""Hard labels straight from class activation maps: confident seeds, and bare masks.

Labels are local to an image: 0 is the background, `k` in 1..K the class of row `k - 1` of its
CAM, and `UNCERTAIN` a pixel that has no label.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = -1
"""Label of a pixel whose CAM is neither low enough for background nor high enough for a class."""

_OVERSHOOT = 1e-3
"""How far over 1 rounding may take a normalised CAM, in resizing say."""


def seed_from_cam(
    cam: NDArray[np.floating[Any]], foreground_threshold: float, background_threshold: float
) -> NDArray[np.int16]:
    """Label the pixels of which the CAM is sure (Lyu et al., eq. 3).

    Both comparisons are strict: a value equal to a threshold is uncertain. Between classes of
    equal value the first wins. Without a class (K = 0) everything is background.

    Args:
        cam: (K, H, W) in [0, 1], a row for each of the image's own tags.
        foreground_threshold: T_fg; a pixel above it belongs to its highest class.
        background_threshold: T_bg; a pixel where every class is below it is background.

    Returns:
        int16 (H, W): 0, 1..K, or `UNCERTAIN`.

    Raises:
        ValueError: `cam` is not a CAM, or not 0 <= T_bg <= T_fg <= 1.

    Examples:
        >>> import numpy as np, weakseg
        >>> cam = np.array([[[0.9, 0.4, 0.1]]], np.float32)
        >>> weakseg.seed_from_cam(cam, 0.5, 0.2).tolist()
        [[1, -1, 0]]
    """
    check_thresholds(foreground_threshold, background_threshold)
    cam = as_cam(cam)
    if len(cam) == 0:
        return np.zeros(cam.shape[1:], np.int16)
    peak = cam.max(axis=0)
    seed = np.full(peak.shape, UNCERTAIN, np.int16)
    # Thresholds rounded as the CAM is, so that a stored 0.2 equals a threshold of 0.2.
    seed[peak < np.float32(background_threshold)] = 0
    foreground = peak > np.float32(foreground_threshold)
    seed[foreground] = cam.argmax(axis=0)[foreground] + 1
    return seed


def mask_from_cam(cam: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.int16]:
    """Label every pixel by its highest class, against a background of constant score.

    The usual way to evaluate a bare CAM. A class that only equals the threshold loses to the
    background. Without a class (K = 0) everything is background.

    Args:
        cam: (K, H, W) in [0, 1], a row for each of the image's own tags.
        threshold: the background's score, in [0, 1].

    Returns:
        int16 (H, W): 0 or 1..K.

    Raises:
        ValueError: `cam` is not a CAM, or `threshold` lies outside [0, 1].

    Examples:
        >>> import numpy as np, weakseg
        >>> cam = np.array([[[0.9, 0.4, 0.1]]], np.float32)
        >>> weakseg.mask_from_cam(cam, 0.3).tolist()
        [[1, 1, 0]]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must lie in [0, 1]")
    return seed_from_cam(cam, threshold, threshold).clip(min=0)


def as_cam(cam: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """`cam` as float32, once it is known to be (K, H, W), finite and in [0, 1].

    Raises:
        ValueError: it is not.
    """
    if cam.ndim != 3:
        raise ValueError(f"cam has shape {cam.shape}; it must be (K, H, W)")
    # Not (a and b) instead of (not a or not b): NaN fails every comparison.
    if cam.size and not (cam.min() >= 0 and cam.max() <= 1 + _OVERSHOOT):
        raise ValueError(
            f"cam spans [{cam.min()}, {cam.max()}]; it must be finite and in [0, 1]: "
            "divide each class by its maximum"
        )
    return cam.astype(np.float32, copy=False)


def check_thresholds(foreground_threshold: float, background_threshold: float) -> None:
    """Raise ValueError unless 0 <= `background_threshold` <= `foreground_threshold` <= 1."""
    if not 0 <= foreground_threshold <= 1:
        raise ValueError(f"foreground_threshold is {foreground_threshold}; it must lie in [0, 1]")
    if not 0 <= background_threshold <= foreground_threshold:
        raise ValueError(
            f"background_threshold is {background_threshold}; it must lie in "
            f"[0, foreground_threshold] = [0, {foreground_threshold}]"
        )
