"""Fully connected CRF: mean field inference on a permutohedral lattice.

Sources:
    Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
    Potentials", NeurIPS 2011 (the model and its mean field update, algorithm 1).
    Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
    Eurographics 2010 (the Gaussian filter inside the update).

Two Gaussian kernels couple the pixels: one on positions, one on positions and colours. Both are
diagonal, symmetrically normalised, and weigh a Potts compatibility. A pixel's message includes
its own term, as in the authors' implementation.

The loops are compiled with numba: torch has no operator for the lattice's hash table, and its
gathers and scatters pass over memory once for every corner of a simplex, which on a CPU takes some
seven times as long as one fused loop. Compilation happens at the first call and is cached on disk.
Everything runs on the calling thread, without the GIL. For GPUs `weakseg.refine.torch_crf` does the
same in torch's operators.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

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
    lattice = _build_lattice(_kernels(image, settings), height * width)
    probabilities = _mean_field(lattice, unary.reshape(n_labels, -1), settings.iterations)
    return probabilities.reshape(unary.shape)


def _on_device(
    kernels: list[_Kernel], unary: NDArray[np.float32], iterations: int, device: torch.device
) -> NDArray[np.float32]:
    from weakseg.refine import torch_crf
    from weakseg.refine.devices import to_device

    embeddings = []
    for features, compat in kernels:
        scale, strides, origin = _embedding(features)
        embeddings.append(
            torch_crf.Embedding(
                to_device(features, device),
                to_device(scale, device),
                to_device(strides, device),
                to_device(_key_steps(strides), device),
                origin,
                compat,
            )
        )
    potentials = to_device(unary, device).flatten(1).T.contiguous()
    probabilities = torch_crf.mean_field(potentials, embeddings, iterations)
    return np.asarray(probabilities.T.reshape(unary.shape).cpu().numpy())


class _Kernel(NamedTuple):
    features: NDArray[np.float32]
    """(d, N), in standard deviations, >= 0."""
    compat: float


def _kernels(image: NDArray[np.uint8], settings: CRFSettings) -> list[_Kernel]:
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
        kernels.append(_Kernel(features.reshape(len(features), -1), float(compat)))
    return kernels


# The permutohedral lattice

# Pixels per pass of each loop in `_locate` and `_update`: enough to overlap their arithmetic, few
# enough to stay in the first-level cache.
_TILE = 64


class _Lattice(NamedTuple):
    """The weighted sum of all kernels as one operator: splat, blur, slice.

    The kernels share one numbering of vertices, so that every stage is one loop. Splat and slice
    use the same weights: normalisation and compatibility are split evenly between the two.
    """

    vertices: NDArray[np.int32]
    """(N, corners): the vertices around each pixel, those of all kernels side by side."""
    weights: NDArray[np.float32]
    """(N, corners): the weight of each of them."""
    chains: NDArray[np.int32]
    """The vertices in the order of the blur: runs of neighbours along one direction."""
    chain_starts: NDArray[np.int64]
    """Where each run begins in `chains`, and where the last ends."""
    n_vertices: int


def _build_lattice(kernels: list[_Kernel], n_pixels: int) -> _Lattice:
    n_corners = sum(len(kernel.features) + 1 for kernel in kernels)
    all_vertices = np.empty((n_pixels, n_corners), np.int32)
    all_weights = np.empty((n_pixels, n_corners), np.float32)
    all_chains = [np.empty(0, np.int32)]
    all_starts = [np.zeros(1, np.int64)]
    n_vertices = column = 0
    for features, compat in kernels:
        dims = len(features)
        vertices = all_vertices[:, column : column + dims + 1]
        weights = all_weights[:, column : column + dims + 1]
        scale, strides, origin = _embedding(features)
        steps = _key_steps(strides)
        corners = (0,) * (dims + 1)
        keys, table, shift = _locate(
            features, scale, strides, steps, origin, vertices, weights, corners
        )
        chains, starts = _link(keys, table, shift, steps)
        response = np.zeros(len(keys), np.float32)
        _splat_ones(vertices, weights, response)
        _blur(response, chains, starts, 1, (0,))
        _normalise(vertices, weights, response, compat)
        vertices += np.int32(n_vertices)
        all_chains.append(chains + np.int32(n_vertices))
        all_starts.append(starts[1:] + all_starts[-1][-1])
        n_vertices += len(keys)
        column += dims + 1
    return _Lattice(
        all_vertices,
        all_weights,
        np.concatenate(all_chains),
        np.concatenate(all_starts),
        n_vertices,
    )


def _embedding(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """How features become lattice coordinates, and coordinates a 64-bit key.

    Returns:
        float32 (d,), the scale of each feature that makes the blur's standard deviation 1 (Adams
        et al., section 3.1); int64 (d,) and an int64: a point's key is the dot product of its
        first d coordinates with the strides, plus the origin.
    """
    dims = len(features)
    axis = np.arange(dims)
    scale = math.sqrt(2 / 3) * (dims + 1) / np.sqrt((axis + 1) * (axis + 2))
    spans = features.max(axis=1)
    reach = spans * scale
    # Vertices and their neighbours lie within 2 (d + 1) of a pixel in every coordinate.
    margin = 2 * (dims + 1) + 1
    low = np.floor(-axis * np.append(0, reach[:-1])) - margin
    high = np.ceil(np.cumsum(reach[::-1])[::-1]) + margin
    extent = high - low + 1
    # Below 2^20 the positions, float32, are exact enough for the simplex search to stay in bounds.
    if not (extent.max() < 2**20 and np.prod(extent) < 2**62):
        raise ValueError(
            f"the features of this image span {spans.tolist()} standard deviations, too many for a "
            "lattice; expected a larger gaussian_sxy, bilateral_sxy or bilateral_srgb"
        )
    strides = np.append(1, np.cumprod(extent[:-1])).astype(np.int64)
    return scale.astype(np.float32), strides, -int(low.astype(np.int64) @ strides)


def _key_steps(strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """How a vertex's key grows along each of the d + 1 directions, int64.

    A step along direction j adds 1 to every coordinate and takes d + 1 from the j-th. The last
    coordinate is minus the sum of the others and isn't stored.
    """
    return np.append(strides.sum() - (len(strides) + 1) * strides, strides.sum())


@compiled
def _find(table: Any, keys: Any, key: Any, shift: Any) -> Any:
    """The slot of a hash table of vertices that holds that of `key`, else the free one for it."""
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@compiled
def _locate(
    features: Any,
    scale: Any,
    strides: Any,
    steps: Any,
    origin: Any,
    vertices: Any,
    weights: Any,
    corners: Any,
) -> tuple[Any, Any, int]:
    """Find the simplex around every pixel and number the vertices in the order they are met.

    Fills `vertices` and `weights` (the barycentric coordinates) and returns the vertices' keys,
    their hash table and its shift.
    """
    dims, n_pixels = features.shape
    n_corners = len(corners)
    position = np.empty((n_corners, _TILE), np.float32)
    origins = np.empty((n_corners, _TILE), np.int32)
    rank = np.empty((n_corners, _TILE), np.int32)
    direction = np.empty(n_corners, np.int64)
    barycentric = np.empty(n_corners + 1, np.float32)

    bits = 12
    table = np.full(1 << bits, -1, np.int32)
    keys = np.empty(1 << bits, np.int64)
    n_vertices = 0
    for first in range(0, n_pixels, _TILE):
        count = min(_TILE, n_pixels - first)
        _find_simplices(features, scale, first, count, position, origins, rank, corners)
        while 2 * (n_vertices + n_corners * count) > len(table):
            bits += 1
            table = np.full(1 << bits, -1, np.int32)
            longer = np.empty(1 << bits, np.int64)
            longer[:n_vertices] = keys[:n_vertices]
            keys = longer
            for vertex in range(n_vertices):
                table[_find(table, keys, keys[vertex], 64 - bits)] = vertex

        for i in range(count):
            for axis in range(n_corners + 1):
                barycentric[axis] = 0
            key = origin
            for axis in range(n_corners):
                column = dims - rank[axis, i]
                share = position[axis, i]
                barycentric[column] += share
                barycentric[column + 1] -= share
                direction[column] = axis
                if axis < dims:
                    key += origins[axis, i] * strides[axis]
            barycentric[0] += np.float32(1) + barycentric[n_corners]

            for corner in range(n_corners):
                slot = _find(table, keys, key, 64 - bits)
                if table[slot] < 0:
                    table[slot] = n_vertices
                    keys[n_vertices] = key
                    n_vertices += 1
                vertices[first + i, corner] = table[slot]
                weights[first + i, corner] = barycentric[corner]
                key += steps[direction[corner]]
    return keys[:n_vertices], table, 64 - bits


@compiled
def _find_simplices(
    features: Any,
    scale: Any,
    first: int,
    count: int,
    position: Any,
    origins: Any,
    rank: Any,
    corners: Any,
) -> None:
    """The simplex around each of `count` pixels, by axis and pixel.

    Loops over the pixels without a branch, which the compiler makes SIMD of.

    Args:
        features: See `_Kernel`.
        scale: See `_embedding`.
        first: The first of the pixels.
        position: Filled: float32, how far a pixel is from the origin of its simplex, over d + 1.
        origins: Filled: int32, the coordinates of that origin.
        rank: Filled: int32, 0..d, the place of each axis among the falling `position`s.
        corners: A tuple of length d + 1; a type, so that loops over the axes are unrolled.
    """
    n_corners = len(corners)
    dims = n_corners - 1
    per_step = np.float32(1 / n_corners)
    for i in range(count):
        partial = np.float32(0)
        for axis in range(dims, 0, -1):
            scaled = features[axis - 1, first + i] * scale[axis - 1]
            position[axis, i] = partial - np.float32(axis) * scaled
            partial += scaled
        position[0, i] = partial
        excess = np.int32(0)
        for axis in range(n_corners):
            multiple = np.floor(position[axis, i] * per_step + np.float32(0.5))
            position[axis, i] -= multiple * np.float32(n_corners)
            origins[axis, i] = np.int32(multiple) * np.int32(n_corners)
            excess += np.int32(multiple)
        for axis in range(n_corners):
            rank[axis, i] = excess
    for axis in range(dims):
        for other in range(axis + 1, n_corners):
            for i in range(count):
                behind = np.int32(position[axis, i] < position[other, i])
                rank[axis, i] += behind
                rank[other, i] += np.int32(1) - behind
    for axis in range(n_corners):
        for i in range(count):
            wrap = np.int32(0)
            if rank[axis, i] < 0:
                wrap = np.int32(n_corners)
            if rank[axis, i] > dims:
                wrap = np.int32(-n_corners)
            rank[axis, i] += wrap
            origins[axis, i] += wrap
            position[axis, i] = (position[axis, i] - np.float32(wrap)) * per_step


@compiled
def _link(keys: Any, table: Any, shift: int, steps: Any) -> tuple[Any, Any]:
    """Chain the vertices along every direction; those without a neighbour need no blur."""
    successor = np.empty(len(keys), np.int32)
    is_first = np.empty(len(keys), np.bool_)
    chains = np.empty(len(keys) * len(steps), np.int32)
    starts = np.zeros(len(chains) // 2 + 1, np.int64)
    length, n_chains = 0, 0
    for step in steps:
        is_first[:] = True
        for vertex in range(len(keys)):
            neighbour = table[_find(table, keys, keys[vertex] + step, shift)]
            successor[vertex] = neighbour
            if neighbour >= 0:
                is_first[neighbour] = False
        for vertex in range(len(keys)):
            if is_first[vertex] and successor[vertex] >= 0:
                member = np.int32(vertex)
                while member >= 0:
                    chains[length] = member
                    length += 1
                    member = successor[member]
                n_chains += 1
                starts[n_chains] = length
    return chains[:length].copy(), starts[: n_chains + 1].copy()


@compiled
def _splat_ones(vertices: Any, weights: Any, values: Any) -> None:
    for pixel in range(vertices.shape[0]):
        for corner in range(vertices.shape[1]):
            values[vertices[pixel, corner]] += weights[pixel, corner]


@compiled
def _normalise(vertices: Any, weights: Any, response: Any, compat: float) -> None:
    """Fold normalisation and compatibility into the weights, given the blur's response to ones.

    The constant factor of the filter cancels out in the symmetric normalisation.
    """
    n_pixels, corners = vertices.shape
    for pixel in range(n_pixels):
        norm = 0.0
        for corner in range(corners):
            norm += weights[pixel, corner] * response[vertices[pixel, corner]]
        factor = np.float32(math.sqrt(compat / norm))
        for corner in range(corners):
            weights[pixel, corner] *= factor


@compiled
def _blur(values: Any, chains: Any, starts: Any, width: int, lanes: Any) -> None:
    """Convolve with (1/2, 1, 1/2) along one direction after the other, in place.

    Args:
        values: float32, flat, `width` numbers for each vertex.
        chains: See `_Lattice`.
        starts: See `_Lattice`.
        width: A multiple of `len(lanes)`.
        lanes: A tuple whose length is the SIMD width; a type, so that the width is a constant.
    """
    half = np.float32(0.5)
    for chain in range(len(starts) - 1):
        for block in range(0, width, len(lanes)):
            here = chains[starts[chain]] * width + block
            value = load(values, here, lanes)
            blurred = value
            for link in range(starts[chain] + 1, starts[chain + 1]):
                ahead = chains[link] * width + block
                following = load(values, ahead, lanes)
                store(values, here, add_scaled(blurred, half, following))
                blurred = add_scaled(following, half, value)
                value = following
                here = ahead
            store(values, here, blurred)


# Mean field

# Numbers that the exponentials are taken of at once.
_WIDE = (0,) * 16


def _mean_field(
    lattice: _Lattice, unary: NDArray[np.float32], iterations: int
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
    rows = np.zeros(_TILE * width, np.float32)
    firsts = np.zeros(_TILE, np.float32)
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
            _blur(messages, lattice.chains, lattice.chain_starts, width, lanes)
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
    for first in range(0, len(vertices), _TILE):
        count = min(_TILE, len(vertices) - first)
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
