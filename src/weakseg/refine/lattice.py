"""A Gaussian filter in many dimensions, on a permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. The loops are compiled with numba: torch has no operator for the hash table, and
its gathers and scatters pass over memory once for every corner of a simplex, which on a CPU takes
some seven times as long as one fused loop. Everything runs on the calling thread, without the GIL.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.refine.compiled import compiled
from weakseg.refine.lanes import add_scaled, load, store


class Kernel(NamedTuple):
    """A Gaussian kernel on the pixels' features, and its weight."""

    features: NDArray[np.float32]
    """(d, N), in standard deviations, >= 0."""
    compat: float


# Pixels per pass of each loop in `_locate` and `_update`: enough to overlap their arithmetic, few
# enough to stay in the first-level cache.
TILE = 64


class Lattice(NamedTuple):
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


def build_lattice(kernels: list[Kernel], n_pixels: int) -> Lattice:
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
        scale, strides, origin = embedding(features)
        steps = key_steps(strides)
        corners = (0,) * (dims + 1)
        keys, table, shift = _locate(
            features, scale, strides, steps, origin, vertices, weights, corners
        )
        chains, starts = _link(keys, table, shift, steps)
        response = np.zeros(len(keys), np.float32)
        _splat_ones(vertices, weights, response)
        blur(response, chains, starts, 1, (0,))
        _normalise(vertices, weights, response, compat)
        vertices += np.int32(n_vertices)
        all_chains.append(chains + np.int32(n_vertices))
        all_starts.append(starts[1:] + all_starts[-1][-1])
        n_vertices += len(keys)
        column += dims + 1
    return Lattice(
        all_vertices,
        all_weights,
        np.concatenate(all_chains),
        np.concatenate(all_starts),
        n_vertices,
    )


def embedding(
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


def key_steps(strides: NDArray[np.int64]) -> NDArray[np.int64]:
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
    position = np.empty((n_corners, TILE), np.float32)
    origins = np.empty((n_corners, TILE), np.int32)
    rank = np.empty((n_corners, TILE), np.int32)
    direction = np.empty(n_corners, np.int64)
    barycentric = np.empty(n_corners + 1, np.float32)

    bits = 12
    table = np.full(1 << bits, -1, np.int32)
    keys = np.empty(1 << bits, np.int64)
    n_vertices = 0
    for first in range(0, n_pixels, TILE):
        count = min(TILE, n_pixels - first)
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
        features: See `Kernel`.
        scale: See `embedding`.
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
def blur(values: Any, chains: Any, starts: Any, width: int, lanes: Any) -> None:
    """Convolve with (1/2, 1, 1/2) along one direction after the other, in place.

    Args:
        values: float32, flat, `width` numbers for each vertex.
        chains: See `Lattice`.
        starts: See `Lattice`.
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
