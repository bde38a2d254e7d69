"""The dense CRF against naive references, its laws, and the peer on real photos."""

import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from weakseg.refine import crf
from weakseg.refine.crf import (
    CRFSettings,
    dense_crf,
    unary_from_labels,
    unary_from_probabilities,
)
from weakseg.refine.lattice import Kernel, blur, build_lattice

Problem = tuple[np.ndarray, np.ndarray, CRFSettings]

LABELS = CRFSettings(3, 3, 50, 5, 10)
PROBABILITIES = CRFSettings(3, 3, 80, 13, 10)
NETWORK = CRFSettings(1, 3, 67, 3, 4)
TABLE = {"labels": LABELS, "probabilities": PROBABILITIES, "network": NETWORK}

VOC = Path(__file__).resolve().parents[3] / "shared" / "data" / "VOC2012"


# Naive references, float64


def softmax(scores: np.ndarray) -> np.ndarray:
    numerator = np.exp(scores - scores.max(axis=0))
    shares: np.ndarray = numerator / numerator.sum(axis=0)
    return shares


def mean_field(kernel: np.ndarray, unary: np.ndarray, iterations: int) -> np.ndarray:
    """Algorithm 1 of Kraehenbuehl and Koltun with a dense N x N kernel and Potts labels."""
    costs = unary.reshape(len(unary), -1).astype(np.float64)
    q = softmax(-costs)
    for _ in range(iterations):
        q = softmax(-costs + q @ kernel.T)
    return q.reshape(unary.shape)


def pixel_features(image: np.ndarray, sxy: float, srgb: float | None = None) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array(
        [
            [x / sxy, y / sxy, *([] if srgb is None else image[y, x] / srgb)]
            for y in range(height)
            for x in range(width)
        ]
    )


def normalised(kernel: np.ndarray) -> np.ndarray:
    norm = 1 / np.sqrt(kernel.sum(axis=1))
    weighed: np.ndarray = norm[:, None] * kernel * norm
    return weighed


def exact_kernel(features: np.ndarray) -> np.ndarray:
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    return normalised(np.exp(-distances / 2))


def exact_kernels(image: np.ndarray, config: CRFSettings) -> np.ndarray:
    return config.gaussian_compat * exact_kernel(
        pixel_features(image, config.gaussian_sxy)
    ) + config.bilateral_compat * exact_kernel(
        pixel_features(image, config.bilateral_sxy, config.bilateral_srgb)
    )


def simplex(feature: np.ndarray) -> tuple[list[tuple[int, ...]], list[float]]:
    """Vertices around a point and its barycentric coordinates (Adams et al., section 3)."""
    d = len(feature)
    scaled = (
        feature * math.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    )
    basis = np.zeros((d + 1, d))
    for i in range(d):
        basis[: i + 1, i] = 1
        basis[i + 1, i] = -(i + 1)
    position = basis @ scaled

    zero = np.round(position / (d + 1)) * (d + 1)
    excess = round(zero.sum() / (d + 1))
    order = np.argsort(position - zero)
    if excess > 0:
        zero[order[:excess]] -= d + 1
    elif excess < 0:
        zero[order[excess:]] += d + 1

    residual = position - zero
    descending = np.argsort(-residual)
    vertices, weights = [], []
    for k in range(d + 1):
        vertex = zero + k
        vertex[descending[d + 1 - k :]] -= d + 1
        vertices.append(tuple(vertex.astype(int)))
        if k:
            gap = residual[descending[d - k]] - residual[descending[d - k + 1]]
            weights.append(gap / (d + 1))
    return vertices, [1 - sum(weights), *weights]


def naive_lattice_kernel(features: np.ndarray) -> np.ndarray:
    """Splat, blur and slice as one dense matrix, with a dictionary for a lattice."""
    d = features.shape[1]
    simplices = [simplex(feature) for feature in features]
    index: dict[tuple[int, ...], int] = {}
    for vertices, _ in simplices:
        for vertex in vertices:
            index.setdefault(vertex, len(index))
    splat = np.zeros((len(index), len(features)))
    for pixel, (vertices, weights) in enumerate(simplices):
        for vertex, weight in zip(vertices, weights, strict=True):
            splat[index[vertex], pixel] += weight
    values = splat
    for direction in range(d + 1):
        step = np.ones(d + 1, int)
        step[direction] -= d + 1
        blurred = values.copy()
        for vertex, row in index.items():
            for neighbour in (tuple(np.add(vertex, step)), tuple(np.subtract(vertex, step))):
                if neighbour in index:
                    blurred[row] += values[index[neighbour]] / 2
        values = blurred
    return normalised(splat.T @ values)


def lattice_kernel(kernels: list[Kernel], n_pixels: int) -> np.ndarray:
    """The operator that the compiled code applies, as a dense matrix."""
    lattice = build_lattice(kernels, n_pixels)
    values = np.zeros((lattice.n_vertices, n_pixels), np.float32)
    pixels = np.arange(n_pixels)
    for vertices, weights in zip(lattice.vertices.T, lattice.weights.T, strict=True):
        np.add.at(values, (vertices, pixels), weights)
    blur(values.reshape(-1), lattice.chains, lattice.chain_starts, n_pixels, (0,))
    matrix: np.ndarray = np.einsum("pc,pcq->pq", lattice.weights, values[lattice.vertices])
    return matrix


def photo_like(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A few flat regions with noise."""
    regions = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3))
    image = regions.repeat(6, axis=0).repeat(6, axis=1)[:height, :width]
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def blocks(rng: np.random.Generator, n: int, height: int, width: int) -> np.ndarray:
    return (
        rng.integers(0, n, (height // 4 + 1, width // 4 + 1))
        .repeat(4, 0)
        .repeat(4, 1)[:height, :width]
    )


# The lattice


@pytest.mark.parametrize("dims", [2, 5])
def test_lattice_equals_a_naive_one(dims: int) -> None:
    features = np.random.default_rng(dims).uniform(0, 3, (120, dims)).astype(np.float32)
    kernel = Kernel(np.ascontiguousarray(features.T), 1.0)
    expected = naive_lattice_kernel(features.astype(np.float64))
    assert_allclose(lattice_kernel([kernel], len(features)), expected, atol=1e-5)


def test_lattice_grows_beyond_its_first_hash_table() -> None:
    features = np.random.default_rng(0).uniform(0, 60, (2, 5000)).astype(np.float32)
    lattice = build_lattice([Kernel(features, 1.0)], 5000)
    seen = {vertex for feature in features.T for vertex in simplex(feature.astype(np.float64))[0]}
    assert lattice.n_vertices == len(seen) > 2048


def test_lattice_kernels_add_up() -> None:
    image = photo_like(np.random.default_rng(1), 9, 13)
    kernels = crf._kernels(image, LABELS)
    separate = sum(lattice_kernel([kernel], 9 * 13) for kernel in kernels)
    assert_allclose(lattice_kernel(kernels, 9 * 13), separate, atol=1e-5)


@pytest.mark.parametrize("name", TABLE)
def test_lattice_filter_is_near_the_exact_gaussian(name: str) -> None:
    """The bounds are the lattice's: in five dimensions a few points spread over it get coarse."""
    config = TABLE[name]
    rng = np.random.default_rng(2)
    image = photo_like(rng, 20, 24)
    field = rng.random((4, 4)).repeat(5, 0).repeat(6, 1).reshape(-1)
    gaussian, bilateral = crf._kernels(image, config)
    for kernel, highest, mean in ((gaussian, 0.06, 0.01), (bilateral, 0.4, 0.04)):
        exact = exact_kernel(kernel.features.T.astype(np.float64)) @ field
        ours = lattice_kernel([kernel], field.size) @ field / kernel.compat
        error = np.abs(ours - exact)
        assert error.max() < highest
        assert error.mean() < mean


# Mean field


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9, 21])
@pytest.mark.parametrize("name", TABLE)
def test_inference_equals_naive_mean_field_on_the_lattice(
    name: str, n: int, device: torch.device | None
) -> None:
    config = TABLE[name]
    rng = np.random.default_rng(n)
    image = photo_like(rng, 15, 17)
    unary = unary_from_probabilities(softmax(rng.normal(0, 2, (n, 15, 17))))
    kernel = lattice_kernel(crf._kernels(image, config), 15 * 17).astype(np.float64)
    expected = mean_field(kernel, unary, config.iterations)
    assert_allclose(dense_crf(image, unary, config, device), expected, atol=1e-3)


@pytest.mark.parametrize("n", [2, 4, 21])
@pytest.mark.parametrize("name", TABLE)
def test_inference_is_near_exact_mean_field(name: str, n: int) -> None:
    """Ten iterations amplify the lattice's error where two labels tie, so a few pixels differ."""
    config = TABLE[name]
    rng = np.random.default_rng(10 + n)
    image = photo_like(rng, 18, 24)
    unary = unary_from_labels(blocks(rng, n, 18, 24), n)
    exact = mean_field(exact_kernels(image, config), unary, config.iterations)
    ours = dense_crf(image, unary, config)
    assert (ours.argmax(axis=0) == exact.argmax(axis=0)).mean() >= 0.9
    assert np.abs(ours - exact).mean() < 0.06


def test_inference_is_near_exact_mean_field_with_positions_only() -> None:
    config = CRFSettings(3, 3, 50, 5, 0)
    rng = np.random.default_rng(3)
    image = photo_like(rng, 18, 24)
    unary = unary_from_probabilities(softmax(rng.normal(0, 1, (3, 18, 24))))
    exact = mean_field(3 * exact_kernel(pixel_features(image, 3)), unary, 10)
    ours = dense_crf(image, unary, config)
    assert (ours.argmax(axis=0) == exact.argmax(axis=0)).mean() >= 0.97
    assert np.abs(ours - exact).mean() < 0.02


# Laws


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n = draw(st.integers(1, 10))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = photo_like(rng, height, width)
    unary = rng.exponential(draw(st.sampled_from([0.1, 2.0, 50.0])), (n, height, width))
    gaussian_compat, bilateral_compat = draw(st.sampled_from([(0, 0), (0.5, 1), (3, 10)]))
    config = CRFSettings(
        gaussian_sxy=draw(st.floats(0.5, 10)),
        gaussian_compat=gaussian_compat,
        bilateral_sxy=draw(st.floats(5, 100)),
        bilateral_srgb=draw(st.floats(2, 50)),
        bilateral_compat=bilateral_compat,
        iterations=draw(st.integers(0, 6)),
    )
    return image, unary.astype(np.float32), config


laws = settings(max_examples=25, deadline=None)


@laws
@given(problems())
def test_probabilities_sum_to_one(problem: Problem) -> None:
    image, unary, config = problem
    result = dense_crf(image, unary, config)
    assert result.dtype == np.float32
    assert result.shape == unary.shape
    assert result.min() >= 0
    assert_allclose(result.sum(axis=0), 1, atol=1e-5)


@laws
@given(problems())
def test_same_input_gives_same_bytes_and_is_left_alone(problem: Problem) -> None:
    image, unary, config = problem
    image_before, unary_before = image.copy(), unary.copy()
    first, second = dense_crf(image, unary, config), dense_crf(image, unary, config)
    assert first.tobytes() == second.tobytes()
    assert_array_equal(image, image_before)
    assert_array_equal(unary, unary_before)


def short(config: CRFSettings) -> CRFSettings:
    """Few enough iterations for rounding not to be amplified beyond a tolerance."""
    return CRFSettings(
        config.gaussian_sxy,
        config.gaussian_compat,
        config.bilateral_sxy,
        config.bilateral_srgb,
        min(config.bilateral_compat, 1),
        min(config.iterations, 3),
    )


@laws
@given(problems(), st.randoms(use_true_random=False))
def test_permuted_labels_permute_the_result(problem: Problem, random: random.Random) -> None:
    image, unary, config = problem
    order = list(range(len(unary)))
    random.shuffle(order)
    expected = dense_crf(image, unary, short(config))[order]
    assert_allclose(dense_crf(image, unary[order], short(config)), expected, atol=1e-3)


@laws
@given(problems(), st.floats(-100, 100))
def test_a_constant_per_pixel_changes_nothing(problem: Problem, constant: float) -> None:
    image, unary, config = problem
    offsets = np.float32(constant) * np.linspace(0, 1, unary[0].size, dtype=np.float32)
    shifted = unary + offsets.reshape(unary.shape[1:])
    expected = dense_crf(image, unary, short(config))
    assert_allclose(dense_crf(image, shifted, short(config)), expected, atol=2e-3)


@laws
@given(problems())
def test_without_kernels_the_result_is_the_softmax(problem: Problem) -> None:
    image, unary, config = problem
    plain = CRFSettings(config.gaussian_sxy, 0, config.bilateral_sxy, config.bilateral_srgb, 0)
    assert_allclose(dense_crf(image, unary, plain), softmax(-unary), atol=1e-5)


@laws
@given(problems())
def test_extra_impossible_label_changes_little(problem: Problem) -> None:
    image, unary, config = problem
    extended = np.concatenate([unary, np.full_like(unary[:1], 1e4)])
    result = dense_crf(image, extended, short(config))
    assert result[-1].max() < 1e-6
    assert_allclose(result[:-1], dense_crf(image, unary, short(config)), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", TABLE)
def test_flips_commute_up_to_the_lattice(name: str, axis: int) -> None:
    """The lattice is anchored at the first pixel, so a flip moves it under the image."""
    rng = np.random.default_rng(4)
    image = photo_like(rng, 60, 72)
    unary = unary_from_labels(blocks(rng, 3, 60, 72), 3)
    plain = dense_crf(image, unary, TABLE[name])
    flipped = dense_crf(np.flip(image, axis), np.flip(unary, axis + 1), TABLE[name])
    agreement = plain.argmax(axis=0) == np.flip(flipped, axis + 1).argmax(axis=0)
    assert agreement.mean() > 0.93


# Corner cases


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 6)])
def test_one_label_is_certain(shape: tuple[int, int]) -> None:
    unary = np.full((1, *shape), 3, np.float32)
    assert_array_equal(dense_crf(np.zeros((*shape, 3), np.uint8), unary, LABELS), 1)


@pytest.mark.parametrize("n", [2, 21])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_thin_images(shape: tuple[int, int], n: int, device: torch.device | None) -> None:
    rng = np.random.default_rng(5)
    image = photo_like(rng, *shape)
    unary = unary_from_labels(rng.integers(0, n, shape), n)
    kernel = lattice_kernel(crf._kernels(image, LABELS), math.prod(shape)).astype(np.float64)
    probabilities = dense_crf(image, unary, LABELS, device)
    assert_allclose(probabilities, mean_field(kernel, unary, 10), atol=1e-3)


def test_a_single_pixel_reinforces_itself() -> None:
    unary = unary_from_labels(np.array([[1]]), 2)
    result = dense_crf(np.zeros((1, 1, 3), np.uint8), unary, CRFSettings(3, 3, 50, 5, 10, 1))
    expected = softmax(np.log([0.3, 0.7]) + 13 * np.array([0.3, 0.7]))
    assert_allclose(result[:, 0, 0], expected, rtol=1e-5)


def test_huge_standard_deviations_connect_all_pixels_alike() -> None:
    rng = np.random.default_rng(6)
    image = photo_like(rng, 8, 9)
    unary = unary_from_probabilities(softmax(rng.normal(0, 1, (3, 8, 9))))
    config = CRFSettings(1e6, 1, 1e6, 1e6, 1, 3)
    expected = mean_field(np.full((72, 72), 2 / 72), unary, 3)
    assert_allclose(dense_crf(image, unary, config), expected, atol=1e-2)


def test_a_constant_image_loses_isolated_labels() -> None:
    labels = np.zeros((20, 20), int)
    labels[10, 10] = 1
    result = dense_crf(np.full((20, 20, 3), 90, np.uint8), unary_from_labels(labels, 2), LABELS)
    assert_array_equal(result.argmax(axis=0), 0)


def test_a_one_label_image_keeps_its_label() -> None:
    image = photo_like(np.random.default_rng(7), 20, 20)
    result = dense_crf(image, unary_from_labels(np.full((20, 20), 2), 4), LABELS)
    assert result[2].min() > 0.99


def test_labels_follow_colours() -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, 12:] = 200
    labels = (np.arange(24) >= 10).astype(int) * np.ones((24, 1), int)
    labels[:, 8:15] = -1
    result = dense_crf(image, unary_from_labels(labels, 2), LABELS).argmax(axis=0)
    assert_array_equal(result, (np.arange(24) >= 12) * np.ones((24, 1), int))


def test_extreme_costs_stay_finite(device: torch.device | None) -> None:
    image = photo_like(np.random.default_rng(8), 6, 6)
    unary = np.zeros((3, 6, 6), np.float32)
    unary[1], unary[2] = 3e38, -3e38
    result = dense_crf(image, unary, LABELS, device)
    assert_allclose(result[2], 1)
    assert np.isfinite(result).all()


def test_views_are_accepted(device: torch.device | None) -> None:
    rng = np.random.default_rng(9)
    image = photo_like(rng, 10, 12)
    unary = rng.exponential(1, (3, 10, 12)).astype(np.float32)
    expected = dense_crf(image, unary, LABELS, device)
    strided = np.asfortranarray(unary)[:, ::-1][:, ::-1]
    assert_array_equal(dense_crf(np.asfortranarray(image), strided, LABELS, device), expected)
    mirrored = np.ascontiguousarray(unary[:, ::-1])[:, ::-1]
    mirrored.flags.writeable = False
    assert_array_equal(dense_crf(image, mirrored, LABELS, device), expected)


def test_large_costs_are_as_good_as_small_ones(device: torch.device | None) -> None:
    rng = np.random.default_rng(10)
    image = photo_like(rng, 10, 12)
    unary = np.round(rng.exponential(100, (3, 10, 12))).astype(np.float32)
    expected = dense_crf(image, unary, LABELS, device)
    large = unary + np.float32(2**20)
    assert_allclose(dense_crf(image, large, LABELS, device), expected, atol=1e-6)


# Unaries


def test_unary_from_labels_values() -> None:
    unary = unary_from_labels(np.array([[0, 2], [-1, 1]]), 4, confidence=0.7)
    assert unary.dtype == np.float32
    assert_allclose(np.exp(-unary[:, 0, 0]), [0.7, 0.1, 0.1, 0.1], rtol=1e-6)
    assert_allclose(np.exp(-unary[:, 0, 1]), [0.1, 0.1, 0.7, 0.1], rtol=1e-6)
    assert_allclose(np.exp(-unary[:, 1, 0]), 0.25, rtol=1e-6)


def test_unary_from_one_label_is_zero() -> None:
    assert_array_equal(unary_from_labels(np.array([[0, -1]]), 1), np.zeros((1, 1, 2)))


def test_unary_from_probabilities_values() -> None:
    unary = unary_from_probabilities(np.array([[[0.0]], [[1.0]]]), clip=1e-3)
    assert unary.dtype == np.float32
    assert_allclose(unary[:, 0, 0], [-math.log(1e-3), 0], rtol=1e-6)


# Errors


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gaussian_sxy", 0),
        ("bilateral_sxy", -1),
        ("bilateral_srgb", math.nan),
        ("bilateral_srgb", math.inf),
        ("gaussian_compat", -0.5),
        ("bilateral_compat", math.nan),
        ("gaussian_sxy", 1e-300),
        ("gaussian_compat", 1e308),
        ("iterations", 10**9),
        ("iterations", -1),
        ("iterations", 1.5),
    ],
)
def test_settings_name_the_value(field: str, value: float) -> None:
    values: dict[str, Any] = {
        "gaussian_sxy": 3,
        "gaussian_compat": 3,
        "bilateral_sxy": 50,
        "bilateral_srgb": 5,
        "bilateral_compat": 10,
        "iterations": 10,
    }
    with pytest.raises(ValueError, match=rf"{field}\n.*=" + re.escape(repr(value))):
        CRFSettings(**(values | {field: value}))


@pytest.mark.parametrize(
    ("image", "unary", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((2, 4, 5), np.float32), "image has shape"),
        (np.zeros((4, 5, 3), np.float32), np.zeros((2, 4, 5), np.float32), "dtype float32"),
        (np.zeros((0, 5, 3), np.uint8), np.zeros((2, 0, 5), np.float32), "image has shape"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((2, 5, 4), np.float32), r"\(n, 4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((0, 4, 5), np.float32), r"\(0, 4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((2, 4, 5)), "dtype float64"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), np.nan, np.float32), "nan"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), np.inf, np.float32), "inf"),
    ],
)
def test_dense_crf_rejects(image: np.ndarray, unary: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_crf(image, unary, LABELS)


@pytest.mark.parametrize("deviations", [(1e-5, 50, 5), (3, 1e-5, 5), (3, 50, 1e-4)])
def test_dense_crf_rejects_standard_deviations_beyond_the_lattice(
    deviations: tuple[float, float, float],
) -> None:
    image = photo_like(np.random.default_rng(0), 50, 50)
    config = CRFSettings(deviations[0], 3, deviations[1], deviations[2], 10)
    with pytest.raises(ValueError, match="expected a larger gaussian_sxy, bilateral_sxy or"):
        dense_crf(image, np.zeros((2, 50, 50), np.float32), config)


def test_small_standard_deviations_disconnect_the_pixels(device: torch.device | None) -> None:
    """At 1 / 1000 of a pixel only a pixel's own message is left, with weight 1."""
    rng = np.random.default_rng(0)
    unary = rng.exponential(1, (3, 20, 20)).astype(np.float32)
    result = dense_crf(photo_like(rng, 20, 20), unary, CRFSettings(1e-3, 2, 1, 1, 0, 5), device)
    assert_allclose(result, mean_field(2 * np.eye(400), unary, 5), atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "n", "confidence", "message"),
    [
        (np.zeros(4, int), 2, 0.7, "shape"),
        (np.zeros((2, 2)), 2, 0.7, "float64"),
        (np.zeros((2, 2), int), 0, 0.7, "n_labels is 0"),
        (np.full((2, 2), 2), 2, 0.7, "labels hold 2"),
        (np.full((2, 2), -2), 2, 0.7, "labels hold -2"),
        (np.zeros((2, 2), int), 2, 0, "confidence is 0"),
        (np.zeros((2, 2), int), 2, 1, "confidence is 1"),
    ],
)
def test_unary_from_labels_rejects(
    labels: np.ndarray, n: int, confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unary_from_labels(labels, n, confidence)


@pytest.mark.parametrize(
    ("probabilities", "clip", "message"),
    [
        (np.zeros((2, 2)), 1e-5, "shape"),
        (np.full((2, 1, 1), 1.5), 1e-5, "1.5"),
        (np.full((2, 1, 1), -0.5), 1e-5, "-0.5"),
        (np.full((2, 1, 1), np.nan), 1e-5, "nan"),
        (np.full((2, 1, 1), 0.5), 0, "clip is 0"),
        (np.full((2, 1, 1), 0.5), 1, "clip is 1"),
    ],
)
def test_unary_from_probabilities_rejects(
    probabilities: np.ndarray, clip: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unary_from_probabilities(probabilities, clip)


# The peer


def peer_crf(
    densecrf: Any, image: np.ndarray, unary: np.ndarray, config: CRFSettings
) -> np.ndarray:
    n, height, width = unary.shape
    model = densecrf.DenseCRF2D(width, height, n)
    model.setUnaryEnergy(np.ascontiguousarray(unary.reshape(n, -1)))
    kind = {
        "kernel": densecrf.DIAG_KERNEL,
        "normalization": densecrf.NORMALIZE_SYMMETRIC,
    }
    model.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat, **kind)
    model.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=image,
        compat=config.bilateral_compat,
        **kind,
    )
    return np.array(model.inference(config.iterations)).reshape(unary.shape)


@pytest.mark.realdata
@pytest.mark.parametrize("name", TABLE)
def test_agrees_with_pydensecrf_on_photos(name: str) -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    photos = sorted((VOC / "JPEGImages").glob("*.jpg"))[::200]
    if not photos:
        pytest.skip(f"no photos in {VOC}")
    same = total = 0
    for photo in photos:
        with Image.open(photo) as opened:
            image = np.array(opened.convert("RGB"))
        with Image.open(VOC / "SegmentationClassAug" / f"{photo.stem}.png") as opened:
            mask = np.asarray(opened)
        classes, labels = np.unique(mask, return_inverse=True)
        labels = labels.reshape(mask.shape)
        # Shifted seeds leave the inference something to correct.
        unary = unary_from_labels(np.roll(labels, (7, 11), axis=(0, 1)), max(2, len(classes)))
        ours = dense_crf(image, unary, TABLE[name]).argmax(axis=0)
        same += (ours == peer_crf(densecrf, image, unary, TABLE[name]).argmax(axis=0)).sum()
        total += ours.size
    assert same / total >= 0.995
