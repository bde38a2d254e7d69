"""Our random walk against powers of the transition matrix, sparse and dense.

    python benchmarks/random_walk.py

The peers are 256 products with scipy's sparse matrix, and, as in IRN's reference code, eight
squarings of the dense matrix (torch); a peer's time includes the making of its matrix. First all
three must give what a dense float64 matrix gives on a small grid. Then each runs in a fresh process
on one thread on the same seeded maps, where its CPU time (the best of three; the dense peer, which
takes minutes, runs once) and what it adds to the process's memory are taken. The results must be
equal to 1e-4 before a row is kept.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy import ndimage

from side_by_side import Measured, Row, measure, record
from weakseg.refine.affinity import pair_directions, pair_ends
from weakseg.refine.random_walk import RandomWalkSettings, random_walk
from weakseg.refine.torch_affinity import affinities

SMALL = (20, 30)
SIZES = ((47, 63), (94, 125), (256, 256), (512, 512))
DENSE_CELLS = 94 * 125
CLASSES = 3
REPEATS = 3
SETTINGS = RandomWalkSettings()
TOLERANCE = 1e-4

Floats = NDArray[np.float32]
Walk = Callable[[Floats, Floats], Floats]


def example(
    height: int, width: int, classes: int = CLASSES, seed: int = 0
) -> tuple[Floats, Floats]:
    """Smooth maps, and boundaries along the zeros of a smooth field."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 3)
    boundary = np.exp(-((field / field.std() / 0.3) ** 2))
    maps = ndimage.gaussian_filter(rng.normal(size=(classes, height, width)), (0, 6, 6))
    cam = np.maximum(maps, 0) / maps.max(axis=(1, 2), keepdims=True)
    return cam.astype(np.float32), boundary.astype(np.float32)


def transitions(boundary: Floats) -> scipy.sparse.csr_array:
    """The transition matrix, rows normalised."""
    cells = torch.arange(boundary.size).view(boundary.shape)
    weights = affinities(torch.from_numpy(boundary), SETTINGS.radius) ** SETTINGS.beta
    identity = cells.flatten()
    starts, ends, values = [identity], [identity], [torch.ones(boundary.size)]
    for plane, direction in zip(weights, pair_directions(SETTINGS.radius), strict=True):
        first, second = (part.flatten() for part in pair_ends(cells, direction))
        weight = pair_ends(plane, direction)[0].flatten()
        starts += [first, second]
        ends += [second, first]
        values += [weight, weight]
    entries = torch.cat(values).numpy(), (torch.cat(starts).numpy(), torch.cat(ends).numpy())
    matrix = scipy.sparse.csr_array(entries, shape=(boundary.size, boundary.size))
    matrix.data /= np.repeat(matrix.sum(axis=1), np.diff(matrix.indptr))
    return matrix


def ours(cam: Floats, boundary: Floats) -> Floats:
    return random_walk(cam, boundary, SETTINGS)


def sparse(cam: Floats, boundary: Floats) -> Floats:
    matrix = transitions(boundary)
    walked = (cam * (1 - boundary)).reshape(len(cam), -1).T.copy()
    for _ in range(SETTINGS.steps):
        walked = matrix @ walked
    return walked.T.reshape(cam.shape)


def dense(cam: Floats, boundary: Floats) -> Floats:
    matrix = torch.from_numpy(transitions(boundary).toarray())
    for _ in range(SETTINGS.steps.bit_length() - 1):
        matrix = matrix @ matrix
    start = torch.from_numpy((cam * (1 - boundary)).reshape(len(cam), -1))
    return (matrix @ start.T).T.reshape(cam.shape).numpy()


PEERS: dict[str, Walk] = {"scipy sparse, 256 products": sparse, "torch dense, 8 squarings": dense}


def check_small() -> None:
    """Exit unless all walks give what a power of the float64 matrix gives."""
    cam, boundary = example(*SMALL)
    matrix = transitions(boundary).toarray().astype(float)
    matrix /= matrix.sum(axis=1, keepdims=True)  # in float32 rows add up to 1 to seven digits only
    power = np.linalg.matrix_power(matrix, SETTINGS.steps)
    expected = ((cam * (1 - boundary)).reshape(CLASSES, -1) @ power.T).reshape(cam.shape)
    for walk in (ours, *PEERS.values()):
        difference = float(np.abs(walk(cam, boundary) - expected).max())
        print(f"{walk.__name__}: {difference:.2g} from the float64 matrix, {SMALL[0]}x{SMALL[1]}")
        if difference > TOLERANCE:
            sys.exit("That is too much; nothing timed")


def measure_walk(walk: Walk, size: tuple[int, int], repeats: int = REPEATS) -> Measured:
    return measure(partial(walk, *example(*SMALL)), partial(walk, *example(*size)), repeats)


def compare(name: str, size: tuple[int, int], own: Measured) -> Row:
    """Ours and a peer's on one grid, or an exit where they differ."""
    peer = measure_walk(PEERS[name], size, 1 if PEERS[name] is dense else REPEATS)
    difference = float(np.abs(peer.result - own.result).max())
    if difference > TOLERANCE:
        sys.exit(f"{name} differs by {difference} on {size[0]}x{size[1]}; no row is kept")
    case = f"{size[0]}x{size[1]} cells, {CLASSES} classes, 256 steps, 1 thread, CPU s"
    figures = own.seconds, peer.seconds, own.mib, peer.mib
    return Row("random walk", case, name, difference, "largest difference", *figures)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    check_small()
    for size in SIZES:
        own = measure_walk(ours, size)
        fitting = [
            n for n, w in PEERS.items() if w is not dense or size[0] * size[1] <= DENSE_CELLS
        ]
        record([compare(name, size, own) for name in fitting])


if __name__ == "__main__":
    main()
