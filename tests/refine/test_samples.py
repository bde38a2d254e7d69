import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.localize.seeds import seed_from_cam
from weakseg.refine.samples import (
    Sampling,
    background_prototype,
    exclude_noisy_foreground,
    image_rng,
    select_samples,
)

T_FG, T_BG = 0.2, 0.05

cams = arrays(
    np.float32,
    st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(1, 8)),
    elements=st.floats(0, 1, width=32),
)


def select(
    cam: np.ndarray, per_class: int, seed: int = 0, method: Sampling = "probability"
) -> tuple[np.ndarray, np.ndarray]:
    labels = seed_from_cam(cam, T_FG, T_BG)
    rng = np.random.default_rng(seed)
    return select_samples(cam, labels, per_class, T_FG, rng, method)


def inclusion_probabilities(weights: np.ndarray, draws: int) -> np.ndarray:
    """Exact, by going through every order of successive draws without replacement."""
    weights = np.asarray(weights, float)
    included = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), draws):
        probability, left = 1.0, weights.sum()
        for pixel in order:
            probability *= weights[pixel] / left
            left -= weights[pixel]
        included[list(order)] += probability
    return included


def frequencies(
    cam: np.ndarray, per_class: int, method: Sampling, repeats: int = 6000
) -> np.ndarray:
    seed = seed_from_cam(cam, T_FG, T_BG)
    rng = np.random.default_rng(7)
    counts = np.zeros(seed.size)
    for _ in range(repeats):
        indices, _ = select_samples(cam, seed, per_class, T_FG, rng, method)
        counts[indices] += 1
    return counts / repeats


# Pixels 0-3: class 1, 4-6: class 2, 7-10: background, 11: uncertain.
SMALL = np.zeros((2, 3, 4), np.float32)
SMALL[0].flat[:4] = [0.25, 0.3, 0.6, 1.0]
SMALL[1].flat[4:7] = [0.9, 0.4, 0.21]
SMALL[1].flat[11] = 0.1


def test_probability_draws_have_the_exact_inclusion_probabilities() -> None:
    expected = np.concatenate(
        [
            inclusion_probabilities(SMALL[0].flat[:4] - T_FG, 2),
            inclusion_probabilities(SMALL[1].flat[4:7] - T_FG, 2),
            np.full(4, 2 / 4),
            [0],
        ]
    )
    # Five standard errors of a frequency near one half.
    np.testing.assert_allclose(frequencies(SMALL, 2, "probability"), expected, atol=0.033)


def test_uniform_draws_have_the_exact_inclusion_probabilities() -> None:
    expected = [2 / 4] * 4 + [2 / 3] * 3 + [2 / 4] * 4 + [0]
    np.testing.assert_allclose(frequencies(SMALL, 2, "uniform"), expected, atol=0.033)


@given(cams, st.integers(1, 70), st.sampled_from(["probability", "uniform"]))
def test_what_is_drawn(cam: np.ndarray, per_class: int, method: Sampling) -> None:
    seed = seed_from_cam(cam, T_FG, T_BG)
    indices, labels = select(cam, per_class, method=method)
    assert labels.dtype == np.int16
    assert (np.diff(indices) > 0).all()
    np.testing.assert_array_equal(labels, seed.flat[indices])
    assert (labels >= 0).all()
    for label in range(len(cam) + 1):
        assert (labels == label).sum() == min(per_class, (seed == label).sum())


@given(cams, st.integers(1, 20), st.integers(0, 2**32))
def test_the_same_generator_gives_the_same_draws(
    cam: np.ndarray, per_class: int, seed: int
) -> None:
    first, second = select(cam, per_class, seed), select(cam, per_class, seed)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_draws_follow_the_classes_when_rows_permute() -> None:
    cam = np.random.default_rng(0).random((3, 12, 12)).astype(np.float32) ** 6
    order = np.array([2, 0, 1])
    indices, labels = select(cam, 5)
    permuted_indices, permuted_labels = select(cam[order], 5)
    np.testing.assert_array_equal(permuted_indices, indices)
    named = np.concatenate([[0], order + 1])
    np.testing.assert_array_equal(named[permuted_labels], labels)


def test_pixels_without_weight_are_not_drawn() -> None:
    cam = np.array([[[0.1, 0.2, 0.5]]], np.float32)
    seed = np.array([[1, 1, 1]])
    rng = np.random.default_rng(0)
    assert select_samples(cam, seed, 9, T_FG, rng)[0].tolist() == [2]
    assert select_samples(cam, seed, 9, T_FG, rng, "uniform")[0].tolist() == [0, 1, 2]


def test_nothing_to_draw() -> None:
    indices, labels = select(np.full((1, 3, 3), 0.1, np.float32), 5)
    assert indices.shape == labels.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": np.zeros((2, 2), int)}, r"seed has shape \(2, 2\); the CAM has \(3, 4\)"),
        ({"seed": np.full((3, 4), 3)}, "seed holds label 3; the CAM has 2 classes"),
        ({"per_class": 0}, "per_class is 0; it must be at least 1"),
        ({"foreground_threshold": 1.2}, r"foreground_threshold is 1.2; .*\[0, 1\]"),
        ({"method": "best"}, "method is 'best'; .*probability.*uniform"),
    ],
)
def test_arguments_out_of_range(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "cam": SMALL,
        "seed": np.zeros((3, 4), int),
        "per_class": 2,
        "foreground_threshold": T_FG,
        "rng": np.random.default_rng(0),
    }
    with pytest.raises(ValueError, match=message):
        select_samples(**(arguments | changes))


def test_prototype_and_exclusion_are_equations_7_and_8() -> None:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((60, 5)).astype(np.float32)
    labels = np.repeat([0, 1, 2], 20)
    total, count = np.zeros(5), 0
    for feature, label in zip(features, labels, strict=True):
        if label == 0:
            total += feature
            count += 1
    prototype = total / count
    np.testing.assert_allclose(background_prototype(features, labels), prototype, rtol=1e-6)

    expected = []
    for feature, label in zip(features, labels, strict=True):
        cosine = prototype @ feature / (np.linalg.norm(prototype) * np.linalg.norm(feature))
        expected.append(label == 0 or not cosine > 0.1)
    keep = exclude_noisy_foreground(features, labels, 0.1)
    assert keep.dtype == np.bool_
    assert not all(expected)
    np.testing.assert_array_equal(keep, expected)


def test_exclusion_never_empties_a_class() -> None:
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0], [-1, 0]], np.float32)
    labels = np.array([0, 1, 1, 2, 2])
    keep = exclude_noisy_foreground(features, labels, 0.2)
    assert keep.tolist() == [True, True, True, False, True]


def test_zero_vectors_are_like_nothing() -> None:
    features = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    assert exclude_noisy_foreground(features, np.array([0, 1, 1]), 0.2).tolist() == [1, 1, 0]
    assert exclude_noisy_foreground(0 * features, np.array([0, 1, 1]), 0.2).all()


def test_exclusion_needs_background_and_a_cosine() -> None:
    features = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="no background"):
        background_prototype(features, np.array([1, 2]))
    with pytest.raises(ValueError, match=r"threshold is 1.1; it must lie in \[-1, 1\]"):
        exclude_noisy_foreground(features, np.array([0, 1]), 1.1)


def test_image_generators_differ_by_seed_and_by_image() -> None:
    draws = {
        (seed, name): image_rng(seed, name).integers(2**62)
        for seed in (0, 1, 11)
        for name in ("a", "b", "1/a", "früh")
    }
    assert len(set(draws.values())) == len(draws)


def test_image_generator_is_the_same_in_every_process() -> None:
    program = (
        "from weakseg.refine.samples import image_rng; print(image_rng(4, 'x').integers(2**62))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    drawn = [
        int(
            subprocess.run(
                [sys.executable, "-c", program],
                env=environment | {"PYTHONHASHSEED": hash_seed},
                capture_output=True,
                check=True,
            ).stdout
        )
        for hash_seed in ("1", "2")
    ]
    assert drawn == [int(image_rng(4, "x").integers(2**62))] * 2
