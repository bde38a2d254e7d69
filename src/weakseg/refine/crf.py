"""Fully connected CRF: mean field inference on a permutohedral lattice.

Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NeurIPS 2011 (the model and its mean field update, algorithm 1);
`weakseg.refine.lattice` is the Gaussian filter inside the update.

Two Gaussian kernels couple the pixels: one on positions, one on positions and colours. Both are
diagonal, symmetrically normalised, and weigh a Potts compatibility. A pixel's message includes
its own term, as in the authors' implementation.

Compilation happens at the first call and is cached on disk. Everything runs on the calling thread.
For GPUs `weakseg.refine.torch_crf` does the same in torch's operators.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weakseg.refine.compiled import compiled
from weakseg.refine.lanes import (
    add_scaled,
    exp_below,
    load,
    minus,
    row_maximum,
    row_sum,
    spread,
    store,
)
from weakseg.refine.lattice import TILE, Kernel, Lattice, blur, build_lattice, embedding, key_steps
from weakseg.refine.settings import CRFSettings

if TYPE_CHECKING:
    import torch

__all__ = ["CRFSettings", "dense_crf", "unary_from_labels", "unary_from_probabilities"]


def unary_from_labels(
    labels: NDArray[np.integer[Any]], n_labels: int, confidence: float = 0.7
) -> NDArray[np.float32]:
    """Turn a label map into unary potentials.

    Args:
        labels: Integers (H, W) in 0..n_labels-1, or -1 where the label is uncertain.
        n_labels: Number of labels, >= 1.
        confidence: Probability of the given label, in (0, 1); the other labels share the rest
            evenly. With a single label it has no effect.

    Returns:
        float32 (n_labels, H, W), -log p. Uncertain pixels have p = 1 / n_labels.

    Raises:
        ValueError: An argument is outside its range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; "
            "expected integers (H, W) with H, W >= 1"
        )
    if n_labels < 1:
        raise ValueError(f"n_labels is {n_labels}; expected an integer >= 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= n_labels:
        raise ValueError(
            f"labels hold {low if low < -1 else high}; expected -1 (uncertain) or 0..{n_labels - 1}"
        )
    if n_labels == 1:
        return np.zeros((1, *labels.shape), np.float32)
    costs = np.full((n_labels + 1, n_labels), -math.log((1 - confidence) / (n_labels - 1)))
    np.fill_diagonal(costs, -math.log(confidence))
    costs[-1] = math.log(n_labels)
    return np.take(costs.T.astype(np.float32), labels, axis=1, mode="wrap")


def unary_from_probabilities(
    probabilities: NDArray[np.floating[Any]], clip: float = 1e-5
) -> NDArray[np.float32]:
    """Turn class probabilities into unary potentials.

    Args:
        probabilities: Floats (n, H, W) in 0..1. They need not sum to 1.
        clip: Smallest probability, in (0, 1); it bounds the potentials at -log(clip).

    Returns:
        float32 (n, H, W), -log p.

    Raises:
        ValueError: An argument is outside its range.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or probabilities.size == 0:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}; expected (n, H, W), all >= 1"
        )
    if not 0 < clip < 1:
        raise ValueError(f"clip is {clip}; expected a number between 0 and 1")
    low, high = float(probabilities.min()), float(probabilities.max())
    tolerance = 1e-3
    if not (low >= -tolerance and high <= 1 + tolerance):
        raise ValueError(f"probabilities range from {low} to {high}; expected 0..1")
    costs: NDArray[np.float32] = -np.log(np.clip(probabilities, clip, 1))
    return costs.astype(np.float32, copy=False)


def unary_from_scores(scores: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Turn scores into unary potentials: -log of their softmax over `temperature`.

    Args:
        scores: float32 (n, H, W), any numbers.
        temperature: over 0; the higher, the less the scores say.

    Returns:
        float32 (n, H, W).
    """
    logits = scores / temperature
    odds = np.exp(logits - logits.max(axis=0))
    return unary_from_probabilities(odds / odds.sum(axis=0))


def dense_crf(
    image: NDArray[np.uint8],
    unary: NDArray[np.float32],
    settings: CRFSettings,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Infer the label probabilities of every pixel (Kraehenbuehl and Koltun, algorithm 1).

    Args:
        image: uint8 (H, W, 3), RGB, H and W >= 1.
        unary: float32 (n, H, W), -log p, finite, n >= 1.
        settings: Kernels and number of iterations.
        device: Where torch's operators compute; None: compiled loops on the calling thread.

    Returns:
        float32 (n, H, W), probabilities that sum to 1 over the labels. With one label they are 1.

    Raises:
        ValueError: An argument has the wrong shape, dtype or range, or a standard deviation is so
            small that the lattice of this image can't be indexed.

    Examples:
        >>> import numpy as np, weakseg
        >>> photo = np.zeros((6, 8, 3), np.uint8)
        >>> photo[:, 4:] = 200
        >>> labels = np.zeros((6, 8), int)
        >>> labels[:, 4:] = 1
        >>> labels[3, 3] = 1  # a pixel of the wrong side
        >>> settings = weakseg.CRFSettings(1, 1, 20, 10, 5)
        >>> found = weakseg.dense_crf(photo, weakseg.unary_from_labels(labels, 2), settings)
        >>> found.argmax(axis=0)[3].tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]
    """
    image, unary = np.asarray(image), np.asarray(unary)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(
            f"image has shape {image.shape} and dtype {image.dtype}; "
            "expected uint8 (H, W, 3) with H, W >= 1"
        )
    height, width = image.shape[:2]
    if unary.ndim != 3 or unary.shape[0] < 1 or unary.shape[1:] != (height, width):
        raise ValueError(
            f"unary has shape {unary.shape}; expected (n, {height}, {width}) with n >= 1"
        )
    if unary.dtype != np.float32:
        raise ValueError(f"unary has dtype {unary.dtype}; expected float32")
    low, high = float(unary.min()), float(unary.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"unary ranges from {low} to {high}; expected finite numbers")
    n_labels = unary.shape[0]
    if n_labels == 1:
        return np.ones_like(unary)

    if device is not None:
        return _on_device(_kernels(image, settings), unary, settings.iterations, device)
    lattice = build_lattice(_kernels(image, settings), height * width)
    probabilities = _mean_field(lattice, unary.reshape(n_labels, -1), settings.iterations)
    return probabilities.reshape(unary.shape)


def _on_device(
    kernels: list[Kernel], unary: NDArray[np.float32], iterations: int, device: torch.device
) -> NDArray[np.float32]:
    from weakseg.refine import torch_crf
    from weakseg.refine.devices import to_device

    embeddings = []
    for features, compat in kernels:
        scale, strides, origin = embedding(features)
        embeddings.append(
            torch_crf.Embedding(
                to_device(features, device),
                to_device(scale, device),
                to_device(strides, device),
                to_device(key_steps(strides), device),
                origin,
                compat,
            )
        )
    potentials = to_device(unary, device).flatten(1).T.contiguous()
    probabilities = torch_crf.mean_field(potentials, embeddings, iterations)
    return np.asarray(probabilities.T.reshape(unary.shape).cpu().numpy())


def _kernels(image: NDArray[np.uint8], settings: CRFSettings) -> list[Kernel]:
    height, width = image.shape[:2]
    kernels = []
    for sxy, srgb, compat in (
        (settings.gaussian_sxy, None, settings.gaussian_compat),
        (settings.bilateral_sxy, settings.bilateral_srgb, settings.bilateral_compat),
    ):
        if compat == 0:
            continue
        features = np.empty((2 if srgb is None else 5, height, width), np.float32)
        features[0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
        features[1] = (np.arange(height, dtype=np.float32) / np.float32(sxy))[:, None]
        if srgb is not None:
            np.divide(np.moveaxis(image, 2, 0), np.float32(srgb), out=features[2:])
        kernels.append(Kernel(features.reshape(len(features), -1), float(compat)))
    return kernels


# Numbers that the exponentials are taken of at once.
_WIDE = (0,) * 16


def _mean_field(
    lattice: Lattice, unary: NDArray[np.float32], iterations: int
) -> NDArray[np.float32]:
    """Probabilities (n, N) after the last iteration, of unary potentials (n, N).

    The softmax sees no number that is added to all labels' messages alike. So what is filtered is
    (probability - 1/n), which adds up to 0 over the labels: the first label's message is minus the
    sum of the others', and takes no filtering of its own.
    """
    n_labels, n_pixels = unary.shape
    others = n_labels - 1
    lanes = (0,) * (others if others <= 2 else 4 if others <= 4 else 8)
    width = -(-others // len(lanes)) * len(lanes)
    other_scores = np.full((n_pixels, width), -1e30, np.float32)
    lowest = unary.min(axis=0)
    with np.errstate(over="ignore"):
        first_scores = lowest - unary[0]
        np.subtract(lowest, unary[1:], out=other_scores[:, :others].T)
    centre = np.zeros(width, np.float32)
    centre[:others] = -1 / n_labels
    messages = np.zeros(lattice.n_vertices * width, np.float32)
    splatted = np.zeros_like(messages)
    rows = np.zeros(TILE * width, np.float32)
    firsts = np.zeros(TILE, np.float32)
    corners = (0,) * lattice.vertices.shape[1]
    flat_scores = other_scores.ravel()
    for iteration in range(iterations + 1):
        last = iteration == iterations
        _update(
            first_scores,
            flat_scores,
            lattice.vertices,
            lattice.weights,
            messages,
            splatted,
            firsts,
            rows,
            centre,
            last,
            lanes,
            corners,
        )
        messages, splatted = splatted, messages
        if not last:
            blur(messages, lattice.chains, lattice.chain_starts, width, lanes)
    probabilities = np.empty_like(unary)
    probabilities[0] = first_scores
    probabilities[1:] = other_scores[:, :others].T
    return probabilities


@compiled
def _update(
    first_scores: Any,
    scores: Any,
    vertices: Any,
    weights: Any,
    messages: Any,
    splatted: Any,
    firsts: Any,
    rows: Any,
    centre: Any,
    last: bool,
    lanes: Any,
    corners: Any,
) -> None:
    """Slice the messages, apply the softmax, and splat its result for the next iteration.

    One loop over the pixels does it all, so that the probabilities never leave the cache; the
    last iteration writes them over the scores.

    Args:
        first_scores: (N,), the first label's.
        scores: (N * width,), the other labels', and numbers that never win.
        centre: (width,), what is added to a probability: -1/n, and 0 where no label is.
    """
    width = len(centre)
    one = np.float32(1)
    splatted[:] = 0
    for first in range(0, len(vertices), TILE):
        count = min(TILE, len(vertices) - first)
        for i in range(count):
            pixel = first + i
            top = first_scores[pixel]
            for block in range(0, width, len(lanes)):
                message = spread(np.float32(0), lanes)
                for corner in range(len(corners)):
                    start = vertices[pixel, corner] * width + block
                    message = add_scaled(
                        message, weights[pixel, corner], load(messages, start, lanes)
                    )
                top -= row_sum(message)
                score = load(scores, pixel * width + block, lanes)
                store(rows, i * width + block, add_scaled(score, one, message))
            firsts[i] = top
            for block in range(0, width, len(lanes)):
                top = max(top, row_maximum(load(rows, i * width + block, lanes)))
            firsts[i] -= top
            for block in range(0, width, len(lanes)):
                row = load(rows, i * width + block, lanes)
                store(rows, i * width + block, minus(row, spread(top, lanes)))
        for start in range(0, len(firsts), len(_WIDE)):
            store(firsts, start, exp_below(load(firsts, start, _WIDE), np.float32(0)))
        for start in range(0, len(rows), len(_WIDE)):
            store(rows, start, exp_below(load(rows, start, _WIDE), np.float32(0)))
        for i in range(count):
            pixel = first + i
            total = firsts[i]
            for block in range(0, width, len(lanes)):
                total += row_sum(load(rows, i * width + block, lanes))
            share = one / total
            if last:
                first_scores[pixel] = firsts[i] * share
                for label in range(width):
                    scores[pixel * width + label] = rows[i * width + label] * share
            else:
                for block in range(0, width, len(lanes)):
                    numerator = load(rows, i * width + block, lanes)
                    centred = add_scaled(load(centre, block, lanes), share, numerator)
                    for corner in range(len(corners)):
                        start = vertices[pixel, corner] * width + block
                        so_far = load(splatted, start, lanes)
                        store(
                            splatted,
                            start,
                            add_scaled(so_far, weights[pixel, corner], centred),
                        )
