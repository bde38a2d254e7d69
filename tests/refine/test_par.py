"""Pixel-adaptive refinement against loops over pixels and neighbours."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.refine import par
from weakseg.refine.par import PARSettings, refine_with_par

FULL = PARSettings(iterations=2, dilations=(1, 3), scale=1)


def naive(photo: np.ndarray, scores: np.ndarray, numbers: PARSettings) -> np.ndarray:
    height, width, _ = photo.shape
    steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    offsets = [(r * d, c * d) for d in numbers.dilations for r, c in steps]
    distances = [math.hypot(r, c) for r, c in offsets]
    spread = statistics.stdev(distances)
    near = shares([-((d / (numbers.width * spread)) ** 2) for d in distances])

    def neighbours(row: int, column: int) -> list[tuple[int, int]]:
        return [
            (min(max(row + r, 0), height - 1), min(max(column + c, 0), width - 1))
            for r, c in offsets
        ]

    current = scores.astype(float)
    for _ in range(numbers.iterations):
        following = np.zeros_like(current)
        for row in range(height):
            for column in range(width):
                places = neighbours(row, column)
                likeness = [0.0] * len(places)
                for channel in range(3):
                    values = [float(photo[place][channel]) for place in places]
                    deviation = statistics.stdev(values)
                    for n, value in enumerate(values):
                        if deviation:
                            difference = value - float(photo[row, column, channel])
                            likeness[n] -= (difference / (numbers.width * deviation)) ** 2 / 3
                for alike, close, place in zip(shares(likeness), near, places, strict=True):
                    weight = (alike + numbers.position_weight * close) / (
                        1 + numbers.position_weight
                    )
                    following[:, row, column] += weight * current[:, place[0], place[1]]
        current = following
    return current


def shares(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Two colours with some noise."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 40, (height, width, 3))
    found[:, width // 2 :] += 150
    return found.astype(np.uint8)


@pytest.mark.parametrize("position_weight", [0, 0.01, 2])
def test_agrees_with_loops(position_weight: float) -> None:
    photo = picture(0, 9, 12)
    photo[2:8, 1:5, 0] = 30  # a channel in which neighbours are alike
    scores = np.random.default_rng(1).normal(size=(3, 9, 12)).astype(np.float32)
    numbers = PARSettings(2, (1, 3), position_weight=position_weight, scale=1)
    found = refine_with_par(photo, scores, numbers)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(photo, scores, numbers), rtol=0, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.booleans())
@settings(max_examples=30, deadline=None)
def test_scores_are_convex_combinations(seed: int, height: int, width: int, flat: bool) -> None:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 2 if flat else 256, (height, width, 3)).astype(np.uint8)
    scores = rng.normal(0, 50, (2, height, width)).astype(np.float32)
    scores[1] = 7
    found = refine_with_par(photo, scores, FULL)
    assert found[0].min() >= scores[0].min() - 1e-3
    assert found[0].max() <= scores[0].max() + 1e-3
    np.testing.assert_allclose(found[1], 7, rtol=1e-5)


def test_scores_spread_where_there_is_no_edge_and_stop_at_one() -> None:
    scores = np.zeros((1, 20, 40), np.float32)
    scores[:, :, 14:20] = 1
    flat = refine_with_par(np.full((20, 40, 3), 90, np.uint8), scores, FULL)
    assert flat.std() < 0.8 * scores.std()
    edged = refine_with_par(picture(0, 20, 40), scores, FULL)
    beyond = np.s_[0, :, 20:24]
    assert flat[beyond].mean() > 0.1
    assert edged[beyond].mean() < 0.02
    assert edged[0, :, :14].mean() > 0.01


def test_bands_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = picture(2, 11, 8)
    scores = np.random.default_rng(1).random((2, 11, 8), np.float32)
    whole = refine_with_par(photo, scores, FULL)
    monkeypatch.setattr(par, "_BAND", 3 * 16 * 8)
    assert np.array_equal(refine_with_par(photo, scores, FULL), whole)


@pytest.mark.parametrize(("scale", "size"), [(0.5, (15, 10)), (1, (30, 20)), (0.01, (1, 1))])
def test_the_size_that_is_worked_at(scale: float, size: tuple[int, int]) -> None:
    scores = np.ones((0, 4, 4), np.float32)
    found = refine_with_par(picture(0, 30, 20), scores, PARSettings(scale=scale))
    assert found.shape == (0, *size)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((3, 3), np.float32), r"shape \(3, 3\); expected \(N, h, w\)"),
        (np.full((1, 3, 3), np.nan, np.float32), "NaN"),
    ],
)
def test_refuses_what_are_no_scores(scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refine_with_par(picture(0, 6, 6), scores, FULL)


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": -1},
        {"dilations": ()},
        {"dilations": (1, 1)},
        {"dilations": (0,)},
        {"width": 0},
        {"position_weight": -1},
        {"scale": 0},
        {"scale": math.nan},
    ],
)
def test_refuses_numbers_out_of_range(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=rf"{name}(\.\d)?\n.*should|{name} is .*expected"):
        PARSettings(**change)
