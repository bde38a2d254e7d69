import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.confidence import (
    MARGIN,
    mask_confidence,
    mean_margin,
    probabilities,
    reliability,
    spearman,
)


def naive_confidence(
    mask: np.ndarray, class_ids: list[int], others: list[np.ndarray], p: np.ndarray
) -> list[float]:
    (H, W), (h, w) = mask.shape, p.shape[1:]
    found = []
    for row, c in enumerate(class_ids, 1):
        inside = [
            p[row, y * h // H, x * w // W] for y in range(H) for x in range(W) if mask[y, x] == c
        ]
        low, high = 0.0, 0.0
        for cell in p.reshape(len(p), -1).T:
            target = float(cell.argmax() == row)
            low, high = low + min(cell[row], target), high + max(cell[row], target)
        ious = []
        for other in others:
            shared = whole = 0
            for one, two in zip(mask.ravel(), other.ravel(), strict=True):
                if 255 not in (one, two):
                    shared += one == c and two == c
                    whole += one == c or two == c
            ious.append(shared / whole if whole else 0.0)
        found.append(np.mean(inside) * (low / high + np.mean(ious)) / 2 if inside else 0.0)
    return found


def test_it_is_as_the_naive_reference() -> None:
    rng = np.random.default_rng(0)
    mask, *others = rng.choice(np.array([0, 3, 7, 255], np.uint8), (4, 21, 30))
    p = probabilities(rng.normal(size=(3, 7, 9)).astype(np.float32), 1.0)
    expected = naive_confidence(mask, [3, 7], others, p)
    assert mask_confidence(mask, [3, 7], others, p) == pytest.approx(expected, rel=1e-5)


def test_perfect_agreement_and_sharp_scores_are_sure() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:10] = 2
    sharp = np.stack([mask == 0, mask == 2]).astype(np.float32)
    assert mask_confidence(mask, [2], [mask], sharp) == pytest.approx([1])
    assert mask_confidence(mask, [2], [], sharp) == pytest.approx([1])
    assert mask_confidence(mask, [2], [mask]) == pytest.approx([1])
    assert mask_confidence(mask, [2], [np.roll(mask, 10, 0)]) == [0]
    assert mask_confidence(mask, [5], [mask]) == [0]


def test_nothing_that_tells_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing tells"):
        mask_confidence(np.ones((2, 2), np.uint8), [1], [])


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_the_scale_of_scores_does_not_count(scale: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(3, 6, 5)).astype(np.float32)
    scaled = (scores * scale).astype(np.float32)
    one = probabilities(scores, mean_margin(scores))
    other = probabilities(scaled, mean_margin(scaled))
    np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(one.sum(axis=0), 1, rtol=1e-5)
    assert mean_margin(np.log(one)) == pytest.approx(MARGIN, rel=1e-3)


def test_a_mean_margin_is_that_over_the_second() -> None:
    scores = np.array([[[0.0, 4.0]], [[1.0, 1.0]], [[3.0, 2.0]]], np.float32)
    assert mean_margin(scores) == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, float).T
    found = spearman(one, other)
    if found is None:
        assert np.ptp(one) == 0 or np.ptp(other) == 0
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(one, other).statistic)


def test_correlation_within_classes_is_their_mean_by_pairs() -> None:
    sure = np.array([1.0, 2, 3, 4, 1, 2, 3, 9])
    iou = np.array([1.0, 2, 3, 4, 3, 2, 1, 0])
    found = reliability(sure, iou, np.array([1, 1, 1, 1, 2, 2, 2, 3]))
    assert found.within_class == pytest.approx((4 * 1 + 3 * -1) / 7)
    assert found.overall == pytest.approx(scipy.stats.spearmanr(sure, iou).statistic)
    assert reliability(sure[:2], iou[:2], np.array([1, 2])) == (None, None)
