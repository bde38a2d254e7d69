"""Training pixels of one image, drawn from its CAM (Lyu et al., section 2.2).

Labels are local to an image, as in `weakseg.localize.seeds`: 0 is the background, `k` in
1..K the class of row `k - 1` of its CAM.
"""

import hashlib
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from weakseg.localize.seeds import as_cam

Sampling = Literal["probability", "uniform"]
"""How foreground pixels are drawn: by how far their CAM exceeds T_fg, or all alike."""


def image_rng(seed: int, image_id: str) -> np.random.Generator:
    """Generator of one image's draws.

    It depends on nothing but its arguments, so that neither the order of the images nor the
    number of workers changes a result; the same on every platform and in every process.

    Args:
        seed: the run's seed.
        image_id: the image's id.
    """
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def select_samples(
    cam: NDArray[np.floating[Any]],
    seed: NDArray[np.integer[Any]],
    per_class: int,
    foreground_threshold: float,
    rng: np.random.Generator,
    method: Sampling = "probability",
) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
    """Draw up to `per_class` pixels of every class, background included (Lyu et al., eq. 4-6).

    Pixels are drawn one after the other without replacement, each draw with probability
    proportional to the weights of the pixels that are left. The weight of a foreground pixel is
    max(A - T_fg, 0) with the CAM value A of its own class (eq. 5; the factor 1/(1 - T_fg) cancels
    in eq. 4), or 1 with `method="uniform"`; that of a background pixel is 1. A class with fewer
    than `per_class` pixels of positive weight gives them all. Uncertain pixels are never drawn.

    Args:
        cam: (K, H, W) in [0, 1].
        seed: (H, W), labels 0..K or negative for uncertain.
        per_class: the most pixels of a class, at least 1.
        foreground_threshold: T_fg, in [0, 1].
        rng: source of the draws; it always gives H * W numbers, whatever the seed.
        method: how foreground pixels are weighted.

    Returns:
        Flat indices into (H, W), ascending and distinct, and their labels, int16; (n,) each.

    Raises:
        ValueError: an argument is out of its range, or shapes disagree.
    """
    cam = as_cam(cam)
    if seed.shape != cam.shape[1:]:
        raise ValueError(f"seed has shape {seed.shape}; the CAM has {cam.shape[1:]}")
    if seed.size and seed.max() > len(cam):
        raise ValueError(f"seed holds label {seed.max()}; the CAM has {len(cam)} classes")
    if per_class < 1:
        raise ValueError(f"per_class is {per_class}; it must be at least 1")
    if not 0 <= foreground_threshold <= 1:
        raise ValueError(f"foreground_threshold is {foreground_threshold}; it must lie in [0, 1]")
    if method not in get_args(Sampling):
        raise ValueError(f"method is {method!r}; it must be one of {get_args(Sampling)}")

    # The exponential race: with independent E_i ~ Exp(1), the n smallest of E_i / w_i are
    # distributed as n successive weighted draws without replacement (Efraimidis and Spirakis,
    # 2006). A pixel has one label at most, so that one E_i each serves all classes.
    arrival = rng.standard_exponential(seed.size)
    labels = seed.ravel()
    chosen = []
    for label in range(len(cam) + 1):
        pixels = np.flatnonzero(labels == label)
        if label == 0 or method == "uniform":
            times = arrival[pixels]
        else:
            excess = cam[label - 1].ravel()[pixels] - np.float32(foreground_threshold)
            pixels, excess = pixels[excess > 0], excess[excess > 0]
            times = arrival[pixels] / excess
        if len(pixels) > per_class:
            pixels = pixels[np.argpartition(times, per_class - 1)[:per_class]]
        chosen.append(pixels)
    indices = np.sort(np.concatenate(chosen))
    return indices, labels[indices].astype(np.int16)


def background_prototype(
    features: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Mean feature of the background samples (Lyu et al., eq. 7).

    Args:
        features: (n, D), a row for each sample.
        labels: (n,), 0 for background.

    Returns:
        float64 (D,).

    Raises:
        ValueError: no sample is background.
    """
    background = labels == 0
    if not background.any():
        raise ValueError("no sample is labelled 0: there is no background to average")
    prototype: NDArray[np.float64] = features[background].mean(axis=0, dtype=np.float64)
    return prototype


def exclude_noisy_foreground(
    features: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], threshold: float
) -> NDArray[np.bool_]:
    """Find the foreground samples that look like the background (Lyu et al., eq. 7 and 8).

    A foreground sample whose cosine with the background prototype exceeds `threshold` is
    excluded. A class of which no sample would be left keeps them all: its tag says that it is in
    the image. A zero vector has cosine 0 with everything.

    Args:
        features: (n, D), a row for each sample.
        labels: (n,), 0 for background.
        threshold: T_s, in [-1, 1].

    Returns:
        bool (n,), True where a sample is kept; always so for background.

    Raises:
        ValueError: `threshold` is out of range, or no sample is background.
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must lie in [-1, 1]")
    prototype = background_prototype(features, labels)
    norms = np.linalg.norm(features, axis=1).astype(np.float64) * np.linalg.norm(prototype)
    dots = features @ prototype
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    keep: NDArray[np.bool_] = (labels == 0) | (cosines <= threshold)
    for label in np.unique(labels):
        members = labels == label
        if not keep[members].any():
            keep |= members
    return keep
