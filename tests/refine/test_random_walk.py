from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from weakseg.refine import random_walk as random_walk_module
from weakseg.refine.affinity import pair_directions, path_cells
from weakseg.refine.random_walk import RandomWalkSettings, random_walk, scale_to_peak

DEFAULT = RandomWalkSettings()


def dense_walk(
    cam: NDArray[np.float32], boundary: NDArray[np.float32], walk: RandomWalkSettings
) -> NDArray[np.float64]:
    """By the power of the whole transition matrix, in float64."""
    height, width = boundary.shape
    exact = boundary.astype(np.float64)
    matrix = np.eye(boundary.size)
    for direction in pair_directions(walk.radius):
        path = path_cells(direction)
        for y in range(height - direction.dy):
            for x in range(max(0, -direction.dx), width - max(0, direction.dx)):
                affinity = 1 - max(exact[y + dy, x + dx] for dy, dx in path)
                here = y * width + x
                there = here + direction.dy * width + direction.dx
                matrix[here, there] = matrix[there, here] = affinity**walk.beta
    matrix /= matrix.sum(axis=0)
    start = (cam * (1 - exact)).reshape(len(cam), -1)
    walked: NDArray[np.float64] = start @ np.linalg.matrix_power(matrix, walk.steps)
    return walked.reshape(cam.shape)


def example(height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((height, width))
    cam = np.maximum(rng.normal(size=(classes, height, width)), 0)
    boundary = rng.beta(0.5, 0.5, size=(height, width))
    return cam.astype(np.float32), boundary.astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width", "classes"),
    [(1, 1, 1), (1, 9, 2), (7, 1, 1), (2, 3, 1), (4, 4, 5), (13, 17, 3)],
)
def test_agrees_with_the_dense_matrix(
    height: int, width: int, classes: int, device: torch.device | None
) -> None:
    cam, boundary = example(height, width, classes)
    walked = random_walk(cam, boundary, DEFAULT, device)
    assert walked.dtype == np.float32 and walked.shape == cam.shape
    np.testing.assert_allclose(walked, dense_walk(cam, boundary, DEFAULT), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 10, 33, 1024])
@pytest.mark.parametrize("radius", [2, 7])
def test_agrees_with_the_dense_matrix_for_any_steps_and_radius(
    steps: int, radius: int, device: torch.device | None
) -> None:
    cam, boundary = example(9, 8, 2)
    walk = RandomWalkSettings(radius=radius, beta=3, steps=steps)
    walked = random_walk(cam, boundary, walk, device)
    np.testing.assert_allclose(walked, dense_walk(cam, boundary, walk), rtol=0, atol=1e-5)


def test_agrees_with_the_dense_matrix_where_blocks_of_cells_meet() -> None:
    cam, boundary = example(12, 180, 2)
    walk = RandomWalkSettings(radius=3, steps=5)
    expected = dense_walk(cam, boundary, walk)
    np.testing.assert_allclose(random_walk(cam, boundary, walk), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-3, 1e-2])
def test_stops_as_early_as_the_tolerance_lets_it(tolerance: float) -> None:
    cam, boundary = example(18, 23, 2)
    early = RandomWalkSettings(tolerance=tolerance)
    difference = np.abs(random_walk(cam, boundary, early) - random_walk(cam, boundary, DEFAULT))
    assert 0.1 * tolerance < difference.max() / cam.max() < 10 * tolerance


def test_a_constant_stays_a_constant_when_the_walk_stops_early() -> None:
    constant = np.full((1, 8, 9), 3, np.float32)
    walked = random_walk(constant, np.zeros((8, 9), np.float32), RandomWalkSettings(tolerance=0.1))
    np.testing.assert_allclose(walked, constant, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    boundary=arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)),
    value=st.floats(0, 100, width=32),
)
def test_a_constant_stays_where_the_boundary_leaves_the_start_constant(
    boundary: NDArray[np.float32], value: float
) -> None:
    constant = np.where(boundary < 1, value / np.maximum(1 - boundary, 1e-6), 0)[None]
    cam = constant.astype(np.float32)
    start = cam * (1 - boundary)
    walked = random_walk(cam, boundary, DEFAULT)
    assert walked.min() >= 0
    assert walked.max() <= start.max() * (1 + 1e-4) + 1e-6
    inner = boundary < 1
    np.testing.assert_allclose(walked[:, inner], start[:, inner], rtol=1e-4, atol=1e-6)


def test_fills_a_region_and_stops_at_its_boundary(device: torch.device | None) -> None:
    boundary = np.zeros((20, 30), np.float32)
    boundary[:, 15] = 1
    cam = np.zeros((1, 20, 30), np.float32)
    cam[0, 8:12, 3:7] = 1
    walked = random_walk(cam, boundary, DEFAULT, device)[0]
    assert walked[:, :15].min() > 0.03
    assert walked[:, 15:].max() == 0


def test_classes_walk_alone() -> None:
    cam, boundary = example(11, 12, 3)
    together = random_walk(cam, boundary, DEFAULT)
    alone = np.concatenate([random_walk(cam[k : k + 1], boundary, DEFAULT) for k in range(3)])
    np.testing.assert_array_equal(together, alone)


def test_nothing_stays_nothing() -> None:
    boundary = np.full((5, 6), 0.5, np.float32)
    walked = random_walk(np.zeros((2, 5, 6), np.float32), boundary, DEFAULT)
    assert not walked.any()
    assert random_walk(np.zeros((0, 5, 6), np.float32), boundary, DEFAULT).shape == (0, 5, 6)


def test_leaves_its_input_alone() -> None:
    cam, boundary = example(6, 5, 2)
    before = cam.copy(), boundary.copy()
    random_walk(cam, boundary, DEFAULT)
    np.testing.assert_array_equal(cam, before[0])
    np.testing.assert_array_equal(boundary, before[1])


@pytest.mark.parametrize(
    ("cam", "boundary", "message"),
    [
        (np.zeros((1, 3, 4)), np.zeros((4, 3)), r"shapes \(1, 3, 4\) and \(4, 3\)"),
        (np.zeros((3, 4)), np.zeros((3, 4)), "expected"),
        (np.full((1, 3, 4), -1), np.zeros((3, 4)), "cam spans"),
        (np.full((1, 3, 4), np.nan), np.zeros((3, 4)), "cam spans"),
        (np.full((1, 3, 4), np.inf), np.zeros((3, 4)), "cam spans"),
        (np.zeros((1, 3, 4)), np.full((3, 4), 1.5), "boundary spans"),
        (np.zeros((1, 3, 4)), np.full((3, 4), np.nan), "boundary spans"),
    ],
)
def test_refuses_what_is_no_map(cam: np.ndarray, boundary: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_walk(cam.astype(np.float32), boundary.astype(np.float32), DEFAULT)


def test_memory_is_counted_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walk_module, "memory_here", lambda: 4 * 34 * 28 * 38)
    cam, boundary = np.ones((1, 20, 30), np.float32), np.zeros((20, 30), np.float32)
    random_walk(cam, boundary, DEFAULT)  # 34 directions, a margin of 4 cells
    with pytest.raises(ValueError, match="a walk of radius 5 on 21x30 cells takes 0 GiB, of 0"):
        random_walk(np.ones((1, 21, 30), np.float32), np.zeros((21, 30), np.float32), DEFAULT)


@pytest.mark.parametrize(
    "values",
    [
        {"radius": 32, "steps": 1},
        {"beta": 1e6},
        {"beta": 1e-300},
        {"steps": 2**16},
        {"steps": 0},
        {"steps": 1, "tolerance": 0.5},
        {"steps": 2, "tolerance": 0.5},
        {"steps": 2**16 - 1, "tolerance": 0.5},
    ],
)
def test_the_ends_of_the_settings_ranges_give_numbers(values: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    cam, boundary = rng.random((2, 9, 12), np.float32), rng.random((9, 12), np.float32)
    walked = random_walk(cam, boundary, RandomWalkSettings(**values))
    assert np.isfinite(walked).all() and 0 < walked.max() <= cam.max()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius": 1}, r"radius\n.*=1,"),
        ({"radius": 10**6}, r"radius\n.*=1000000,"),
        ({"beta": 0.0}, r"beta\n.*=0.0,"),
        ({"beta": float("nan")}, r"beta\n.*=nan,"),
        ({"beta": float("inf")}, r"beta\n.*=inf,"),
        ({"steps": -1}, r"steps\n.*=-1,"),
        ({"steps": 10**9}, r"steps\n.*=1000000000,"),
        ({"tolerance": 1.0}, r"tolerance\n.*=1.0,"),
    ],
)
def test_settings_name_a_value_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomWalkSettings(**values)


def test_scaling_makes_the_highest_of_all_maps_one() -> None:
    maps = np.array([[[0.0, 2.0]], [[4.0, 1.0]]], np.float32)
    assert scale_to_peak(maps).tolist() == [[[0.0, 0.5]], [[1.0, 0.25]]]
    for nothing in (np.zeros((2, 1, 3), np.float32), np.zeros((0, 1, 3), np.float32)):
        np.testing.assert_array_equal(scale_to_peak(nothing), nothing)
