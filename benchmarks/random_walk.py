"""Our random walk against powers of the transition matrix, sparse and dense: time and agreement.

    python benchmarks/random_walk.py

The peers are 256 products with scipy's sparse matrix, and, as in IRN's reference code, eight
squarings of the dense matrix (torch). All run in one process on one thread, in turn, on the same
seeded maps; a peer's time includes the making of its matrix. Before anything is timed the results
must agree within 1e-3.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from weakseg.refine.affinity import affinities, pair_directions, pair_ends
from weakseg.refine.random_walk import RandomWalkSettings, random_walk

SIZES = ((47, 63), (94, 125), (256, 256), (512, 512))
SETTINGS = RandomWalkSettings()
TOLERANCE = 1e-3

Floats = NDArray[np.float32]
Walk = Callable[[Floats, Floats], Floats]


def example(height: int, width: int, classes: int) -> tuple[Floats, Floats]:
    """Smooth maps, and boundaries along the zeros of a smooth field."""
    rng = np.random.default_rng(0)
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


def seconds(walk: Walk, cam: Floats, boundary: Floats, repeats: int) -> float:
    """The best of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        walk(cam, boundary)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--dense-cells", type=int, default=3000, help="largest grid for the dense matrix"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'cells':>12}{'weakseg':>12}{'sparse':>12}{'dense':>12}   seconds")
    with threadpool_limits(1):
        for height, width in SIZES:
            cam, boundary = example(height, width, arguments.classes)
            walks = [ours, sparse, *([dense] if boundary.size <= arguments.dense_cells else [])]
            expected = ours(cam, boundary)
            for walk in walks[1:]:
                difference = float(np.abs(walk(cam, boundary) - expected).max())
                if difference > TOLERANCE:
                    sys.exit(f"{walk.__name__} differs by {difference}; nothing timed")
            times = [seconds(walk, cam, boundary, arguments.repeats) for walk in walks]
            print(f"{height:7} x{width:4}" + "".join(f"{value:12.4f}" for value in times))


if __name__ == "__main__":
    main()
