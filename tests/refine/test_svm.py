import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.svm import SVC

from weakseg.localize.seeds import mask_from_cam, seed_from_cam
from weakseg.refine import svm, svm_solver, torch_svm
from weakseg.refine.samples import exclude_noisy_foreground, image_rng, select_samples
from weakseg.refine.svm import (
    SVMRefinement,
    SVMSettings,
    refine_many_with_svm,
    refine_with_svm,
    zscore,
)

SIDE = 32
DEFAULTS = SVMSettings()


def photo(
    classes: int, seed: int = 0, separation: float = 2.5, noisy: bool = True
) -> tuple[NDArray[np.int_], NDArray[np.float32], NDArray[np.float32]]:
    """Square objects on background: their true labels, z-scored features, and a CAM.

    The CAM fires on the left half of each object only. A noisy one also misses some pixels of
    the objects, and fires on some background.
    """
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIDE, SIDE), int)
    cam = np.zeros((classes, SIDE, SIDE), np.float32)
    corners = [(2, 2), (2, 18), (18, 2)]
    for k, (y, x) in enumerate(corners[:classes]):
        truth[y : y + 12, x : x + 12] = k + 1
        cam[k, y : y + 12, x : x + 12] = 0.1
        cam[k, y : y + 12, x : x + 6] = rng.uniform(0.5, 1, (12, 6))
    missed = noisy & (truth > 0) & (rng.random(truth.shape) < 0.15)
    cam[:, missed] = 0
    wrong = noisy & (truth == 0) & (rng.random(truth.shape) < 0.1)
    cam[0, wrong] = 0.6
    features = rng.standard_normal((6, SIDE, SIDE))
    for label in range(classes + 1):
        features[label] += separation * np.where(truth == label, 1, -1)
    return truth, zscore(features), cam


def reference(
    features: np.ndarray, cam: np.ndarray, settings: SVMSettings, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """The whole method with plain scikit-learn; scores fitted to its pairs' decision values."""
    depth = len(features)
    pixels = features.reshape(depth, -1).T
    indices, labels = select_samples(
        cam,
        seed_from_cam(cam, settings.foreground_threshold, settings.background_threshold),
        settings.samples_per_class,
        settings.foreground_threshold,
        rng,
        settings.sampling,
    )
    samples = pixels[indices]
    if settings.exclusion_threshold is not None:
        keep = exclude_noisy_foreground(samples, labels, settings.exclusion_threshold)
        samples, labels = samples[keep], labels[keep]

    def scores(labels: np.ndarray, of: np.ndarray) -> np.ndarray:
        model = SVC(
            kernel=settings.kernel,
            C=settings.C,
            gamma=settings.gamma,
            tol=1e-5,  # at 1e-3 a sample on the border may go either way, and all cycles after it
            decision_function_shape="ovo",
        ).fit(samples, labels)
        margins = model.decision_function(of)
        if margins.ndim == 1:
            margins = -margins[:, None]
        pairs = list(itertools.combinations(range(len(model.classes_)), 2))
        differences = np.zeros((len(pairs) + 1, len(model.classes_)))
        for row, (i, j) in enumerate(pairs):
            differences[row, [i, j]] = 1, -1
        differences[-1] = 1  # the scores sum to 0
        wanted = np.concatenate([margins, np.zeros((len(of), 1))], axis=1)
        solved: np.ndarray = np.linalg.lstsq(differences, wanted.T)[0]
        return solved

    cycles = 0
    for _ in range(settings.cycles):
        predicted = scores(labels, samples).argmax(axis=0)
        if (predicted == labels).all():
            break
        labels, cycles = predicted, cycles + 1
    return scores(labels, pixels).reshape(-1, SIDE, SIDE), cycles


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        DEFAULTS,
        SVMSettings(cycles=0, exclusion_threshold=None, samples_per_class=40),
        SVMSettings(kernel="linear", cycles=2, sampling="uniform"),
        SVMSettings(C=10.0, gamma=0.05, cycles=3),
    ],
)
def test_agrees_with_plain_scikit_learn(classes: int, settings: SVMSettings) -> None:
    _, features, cam = photo(classes)
    refined = refine_with_svm(features, cam, settings, image_rng(0, "a"))
    expected, cycles = reference(features, cam, settings, image_rng(0, "a"))
    assert refined.outcome == "svm"
    assert refined.cycles == cycles
    assert refined.scores.dtype == np.float32
    assert refined.scores.shape == (classes + 1, SIDE, SIDE)
    # Ours stops at a tolerance of 1e-3, on kernel matrices of other precision.
    np.testing.assert_allclose(refined.scores, expected, rtol=2e-3, atol=5e-3)
    assert (refined.labels == expected.argmax(axis=0)).mean() > 0.998


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        DEFAULTS,
        SVMSettings(samples_per_class=40, exclusion_threshold=None),
        SVMSettings(kernel="linear", cycles=2),
        SVMSettings(C=10.0, gamma=0.05, cycles=0),
    ],
)
@pytest.mark.parametrize("together", [1, 3, 100])
def test_many_images_at_once_end_as_each_alone(
    settings: SVMSettings,
    together: int,
    torch_device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_svm, "GRAM_BYTES", together * 4 * SIDE**4)
    monkeypatch.setattr(torch_svm, "_BLOCK", 100)
    _, features, dead = photo(1)
    dead = np.zeros_like(dead)
    lost = np.concatenate([photo(1)[2], photo(1)[2] / 2])
    images = [(features, dead[:0]), *(photo(k, seed)[1:] for k, seed in [(2, 0), (1, 1), (3, 2)])]
    images += [(features, dead), (features, lost), photo(1, separation=8.0, noisy=False)[1:]]
    several = [(*image, image_rng(0, str(i))) for i, image in enumerate(images)]
    refined = refine_many_with_svm(several, settings, torch_device)
    for i, (image, found) in enumerate(zip(images, refined, strict=True)):
        alone = refine_with_svm(*image, settings, image_rng(0, str(i)))
        assert (found.outcome, found.samples, found.excluded) == (
            alone.outcome,
            alone.samples,
            alone.excluded,
        )
        assert abs(found.cycles - alone.cycles) <= 1  # a sample on the border goes either way
        assert found.scores.dtype == np.float32
        np.testing.assert_allclose(found.scores, alone.scores, rtol=2e-3, atol=1e-2)
        assert (found.labels == alone.labels).mean() > 0.998


def test_an_image_too_large_for_the_device_is_done_alone(
    torch_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [(*photo(2, seed)[1:], image_rng(0, str(seed))) for seed in range(2)]
    monkeypatch.setattr(torch_svm, "GRAM_BYTES", 1000)
    refined = refine_many_with_svm(images, DEFAULTS, torch_device)
    for seed, found in enumerate(refined):
        alone = refine_with_svm(*photo(2, seed)[1:], DEFAULTS, image_rng(0, str(seed)))
        np.testing.assert_array_equal(found.scores, alone.scores)


def test_trainings_at_once_that_get_nowhere_end(
    torch_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SVMSettings(kernel="linear", C=1e6, cycles=0)
    found = []
    for steps in (1, 2):
        monkeypatch.setattr(torch_svm, "_STEPS", steps)
        images = [(*photo(1)[1:], image_rng(0, "a"))]
        (refined,) = refine_many_with_svm(images, settings, torch_device)
        assert refined.outcome == "svm" and np.isfinite(refined.scores).all()
        found.append(refined.scores)
    assert (found[0] != found[1]).any()  # where the steps ran out, not at an optimum


def test_no_images_at_once(torch_device: torch.device) -> None:
    assert refine_many_with_svm([], DEFAULTS, torch_device) == []


@pytest.mark.parametrize("classes", [1, 2])
def test_samples_whose_kernel_matrix_is_too_large(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, features, cam = photo(classes)
    whole = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
    monkeypatch.setattr(svm_solver, "_STORE_BYTES", 2**20 // 8)
    monkeypatch.setattr(svm, "_BLOCK", 100)
    rowwise = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
    assert (whole.labels == rowwise.labels).mean() > 0.998
    assert whole.cycles == rowwise.cycles


def test_cycles_correct_wrong_labels_and_find_the_other_half() -> None:
    settings = SVMSettings(exclusion_threshold=None)
    errors: dict[int, list[float]] = {0: [], 5: []}
    for seed in range(3):
        truth, features, cam = photo(1, seed)
        for cycles, rates in errors.items():
            refined = refine_with_svm(
                features,
                cam,
                dataclasses.replace(settings, cycles=cycles),
                image_rng(seed, "a"),
            )
            rates.append((refined.labels != truth).mean())
        dark_half = (truth == 1) & (cam[0] < 0.2)
        assert not mask_from_cam(cam, 0.2)[dark_half].any()
        assert refined.labels[dark_half].mean() > 0.9
        fired_in_error = (truth == 0) & (cam[0] > 0.2)
        assert refined.labels[fired_in_error].mean() < 0.1
    assert np.mean(errors[5]) < 0.6 * np.mean(errors[0])


def test_cycles_end_when_no_label_changes() -> None:
    _, features, cam = photo(1, separation=8.0, noisy=False)
    refined = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
    assert refined.outcome == "svm"
    assert refined.cycles == 0


def test_exclusion_drops_foreground_that_looks_like_background() -> None:
    truth, features, cam = photo(1)
    refined = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
    seed = seed_from_cam(cam, 0.2, 0.05)
    assert refined.samples == ((seed == 0).sum(), (seed == 1).sum())
    assert refined.excluded[0] == 0
    fired_in_error = ((seed == 1) & (truth == 0)).sum()
    assert fired_in_error / 2 < refined.excluded[1] <= fired_in_error
    switched_off = dataclasses.replace(DEFAULTS, exclusion_threshold=None)
    assert refine_with_svm(features, cam, switched_off, image_rng(0, "a")).excluded == (0, 0)


def test_same_generator_same_scores() -> None:
    _, features, cam = photo(2)
    settings = SVMSettings(samples_per_class=30)
    first, second = (refine_with_svm(features, cam, settings, image_rng(3, "a")) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)
    other = refine_with_svm(features, cam, settings, image_rng(3, "b"))
    assert (first.scores != other.scores).any()


def test_labels_permute_with_the_rows_of_the_cam() -> None:
    _, features, cam = photo(3, separation=4.0)
    order = np.array([2, 0, 1])
    straight = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
    permuted = refine_with_svm(features, cam[order], DEFAULTS, image_rng(0, "a"))
    named = np.concatenate([[0], order + 1])
    assert (named[permuted.labels] == straight.labels).mean() > 0.998
    assert permuted.samples[1:] == tuple(np.array(straight.samples[1:])[order])


def test_no_more_than_asked_for_is_drawn() -> None:
    _, features, cam = photo(2)
    settings = SVMSettings(samples_per_class=25)
    refined = refine_with_svm(features, cam, settings, image_rng(0, "a"))
    assert refined.samples == (25, 25, 25)


class TestCornerCases:
    def test_no_tag(self) -> None:
        features = np.zeros((4, 5, 6), np.float32)
        cam = np.zeros((0, 5, 6), np.float32)
        refined = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
        assert refined.outcome == "no-tags"
        assert refined.scores.shape == (1, 5, 6)
        assert not refined.labels.any()
        assert (refined.samples, refined.excluded, refined.cycles) == ((0,), (0,), 0)

    def test_tag_without_a_pixel_over_the_threshold_gets_none(self) -> None:
        truth, features, cam = photo(1)
        faint = np.full((1, SIDE, SIDE), 0.15, np.float32) * (truth > 0)
        alone = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
        both = refine_with_svm(features, np.concatenate([faint, cam]), DEFAULTS, image_rng(0, "a"))
        self._check_absent(both, 1)
        assert both.samples[1] == 0
        # The faint tag turns background pixels uncertain at most; the SVM is of one class still.
        assert ((both.labels == 2) == (alone.labels == 1)).mean() > 0.98

    def test_tag_that_loses_every_argmax_gets_none(self) -> None:
        _, features, cam = photo(1)
        refined = refine_with_svm(
            features, np.concatenate([cam, cam / 2]), DEFAULTS, image_rng(0, "a")
        )
        self._check_absent(refined, 2)

    @staticmethod
    def _check_absent(refined: SVMRefinement, row: int) -> None:
        assert refined.outcome == "svm"
        others = np.delete(refined.scores, row, axis=0)
        assert np.ptp(refined.scores[row]) == 0
        assert refined.scores[row].max() < others.min()
        assert refined.labels.any()

    @pytest.mark.parametrize(
        ("low", "high"),
        [(0.1, 0.9), (0.0, 0.15), (0.0, 0.0)],
        ids=["no background", "no foreground", "dead CAM"],
    )
    def test_the_cam_decides_where_no_svm_can_be_trained(self, low: float, high: float) -> None:
        truth, features, _ = photo(1)
        cam = np.where(truth == 1, high, low).astype(np.float32)[None]
        refined = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
        assert refined.outcome == "cam"
        assert refined.cycles == 0
        np.testing.assert_array_equal(refined.scores[0], np.float32(0.2))
        np.testing.assert_array_equal(refined.scores[1:], cam)
        np.testing.assert_array_equal(refined.labels, mask_from_cam(cam, 0.2))

    def test_features_that_are_all_alike(self) -> None:
        _, _, cam = photo(2)
        features = zscore(np.full((3, SIDE, SIDE), 4.2, np.float32))
        refined = refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
        assert refined.outcome == "cam"
        np.testing.assert_array_equal(refined.labels, mask_from_cam(cam, 0.2))

    def test_constant_channels_change_nothing_but_the_kernel_width(self) -> None:
        _, features, cam = photo(1)
        settings = SVMSettings(gamma=0.1)
        padded = np.concatenate([features, np.zeros((2, SIDE, SIDE), np.float32)])
        plain = refine_with_svm(features, cam, settings, image_rng(0, "a"))
        wide = refine_with_svm(padded, cam, settings, image_rng(0, "a"))
        np.testing.assert_allclose(wide.scores, plain.scores, atol=1e-3)

    def test_relabelling_that_loses_a_class_is_not_taken(self) -> None:
        rng = np.random.default_rng(0)
        features = zscore(rng.standard_normal((4, SIDE, SIDE)))
        cam = np.zeros((1, SIDE, SIDE), np.float32)
        cam[0, :2, :3] = 0.9
        settings = SVMSettings(exclusion_threshold=None, C=0.01)
        several = refine_with_svm(features, cam, settings, image_rng(0, "a"))
        single = refine_with_svm(
            features, cam, dataclasses.replace(settings, cycles=0), image_rng(0, "a")
        )
        assert not several.labels.any()
        assert several.outcome == "svm"
        assert several.cycles == 0
        np.testing.assert_array_equal(several.scores, single.scores)

    def test_exclusion_that_would_take_a_whole_tag(self) -> None:
        _, features, cam = photo(1)
        settings = SVMSettings(exclusion_threshold=-1.0)
        refined = refine_with_svm(features, cam, settings, image_rng(0, "a"))
        assert refined.outcome == "svm"
        assert refined.excluded == (0, 0)

    def test_object_of_a_few_pixels(self) -> None:
        rng = np.random.default_rng(0)
        truth = np.zeros((SIDE, SIDE), int)
        truth[10:14, 10:15] = 1
        features = rng.standard_normal((6, SIDE, SIDE)) + 8 * truth
        cam = np.where(truth == 1, 0.9, 0.0).astype(np.float32)[None]
        cam[0, 14, 10:15] = 0.1
        refined = refine_with_svm(zscore(features), cam, DEFAULTS, image_rng(0, "a"))
        assert refined.outcome == "svm"
        assert refined.samples[1] == 20
        np.testing.assert_array_equal(refined.labels, truth)

    def test_image_of_one_pixel(self) -> None:
        features = zscore(np.ones((3, 1, 1), np.float32))
        cam = np.ones((1, 1, 1), np.float32)
        assert refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a")).labels.item() == 1


class TestZscore:
    def test_against_the_definition(self) -> None:
        features = np.random.default_rng(0).normal(3, 7, (4, 9, 11)).astype(np.float32)
        expected = np.stack([(c - c.mean()) / c.std() for c in features.astype(np.float64)])
        normalized = zscore(features)
        assert normalized.dtype == np.float32
        np.testing.assert_allclose(normalized, expected, atol=1e-5)

    @pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
    def test_constant_channel_becomes_zeros(self, value: float) -> None:
        features = np.random.default_rng(0).random((2, 13, 7)).astype(np.float32)
        features[1] = value
        assert not zscore(features)[1].any()
        assert zscore(features)[0].any()

    def test_input_is_left_alone(self) -> None:
        features = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
        before = features.copy()
        zscore(features)
        np.testing.assert_array_equal(features, before)


class TestErrors:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_features_that_are_not_finite(self, value: float) -> None:
        _, features, cam = photo(1)
        features[2, 3, 4] = value
        with pytest.raises(ValueError, match="NaN or infinity"):
            refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))
        with pytest.raises(ValueError, match="NaN or infinity"):
            zscore(features)

    def test_cam_that_is_not_finite(self) -> None:
        _, features, cam = photo(1)
        cam[0, 0, 0] = np.nan
        with pytest.raises(ValueError, match=r"finite and in \[0, 1\]"):
            refine_with_svm(features, cam, DEFAULTS, image_rng(0, "a"))

    def test_grids_that_differ(self) -> None:
        _, features, cam = photo(1)
        with pytest.raises(ValueError, match=r"grid \(32, 32\); the CAM \(32, 31\)"):
            refine_with_svm(features, cam[:, :, 1:], DEFAULTS, image_rng(0, "a"))

    def test_features_without_channels(self) -> None:
        _, features, cam = photo(1)
        with pytest.raises(ValueError, match=r"\(32, 32\); it must be \(D, h, w\)"):
            refine_with_svm(features[0], cam, DEFAULTS, image_rng(0, "a"))
        with pytest.raises(ValueError, match=r"\(0, 32, 32\); it must be \(D, h, w\)"):
            refine_with_svm(features[:0], cam, DEFAULTS, image_rng(0, "a"))

    @pytest.mark.parametrize("C", [1e-6, 1e6])
    @pytest.mark.parametrize("gamma", [1e-9, 1e3])
    def test_the_ends_of_the_settings_ranges_give_numbers(self, C: float, gamma: float) -> None:
        _, features, cam = photo(2)
        settings = SVMSettings(C=C, gamma=gamma, samples_per_class=100, cycles=1)
        refined = refine_with_svm(features, cam, settings, image_rng(0, "a"))
        assert refined.outcome == "svm" and np.isfinite(refined.scores).all()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"foreground_threshold": 1.1}, "foreground_threshold is 1.1"),
            ({"background_threshold": 0.3}, r"background_threshold is 0.3; .*\[0, 0.2\]"),
            ({"samples_per_class": 0}, r"samples_per_class\n.* greater than or equal to 1"),
            ({"sampling": "all"}, r"sampling\n.* 'uniform'"),
            ({"exclusion_threshold": 2.0}, r"exclusion_threshold\n.* less than or equal to 1"),
            ({"cycles": -1}, r"cycles\n.* greater than or equal to 0"),
            ({"kernel": "poly"}, r"kernel\n.* 'rbf'"),
            ({"C": 0.0}, r"C\n.*=0.0,"),
            ({"C": float("nan")}, r"C\n.* finite number"),
            ({"gamma": "auto"}, r"gamma\.literal.*\n.* 'scale'"),
            ({"gamma": 0.0}, "gamma is 0.0"),
            ({"gamma": 1e308}, r"gamma is 1e\+308"),
            ({"C": 1e308}, r"C\n.* less than or equal to 1000000"),
            ({"cycles": 10**9}, r"cycles\n.* less than or equal to 1000 "),
        ],
    )
    def test_settings_out_of_range(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            SVMSettings(**values)
