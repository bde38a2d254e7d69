import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg import metrics
from weakseg.metrics import ConfusionMatrix, best_overlaps, sweep_thresholds

CLASSES = ("cat", "dog")
truths = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255]))
predictions = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255]))


def naive_iou(pairs: list[tuple[np.ndarray, np.ndarray]], class_id: int) -> float:
    intersection = union = 0
    for truth, prediction in pairs:
        for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
            if t != 255:
                intersection += t == class_id and p == class_id
                union += t == class_id or p == class_id
    return intersection / union if union else float("nan")


@given(truths, predictions, truths, predictions)
def test_iou_is_the_naive_one_over_the_whole_set(
    t1: np.ndarray, p1: np.ndarray, t2: np.ndarray, p2: np.ndarray
) -> None:
    matrix = ConfusionMatrix(CLASSES)
    matrix.update(t1, p1)
    matrix.update(t2, p2)
    expected = [naive_iou([(t1, p1), (t2, p2)], c) for c in range(3)]
    np.testing.assert_allclose(matrix.iou(), expected)
    if not np.isnan(expected).all():
        assert matrix.summary()["miou"] == pytest.approx(np.nanmean(expected))


def test_summary_of_a_case_counted_by_hand() -> None:
    matrix = ConfusionMatrix(CLASSES)
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 255, 2]], np.uint8)
    matrix.update(truth, prediction)
    assert matrix.summary() == {
        "images": 1,
        "miou": pytest.approx((1 / 2 + 1 / 3) / 2),
        "mean_accuracy": pytest.approx((1 / 2 + 1 / 2) / 2),
        "pixel_accuracy": pytest.approx(2 / 4),
        "per_class": {"background": 0.5, "cat": pytest.approx(1 / 3), "dog": None},
    }


@given(truths, predictions, st.integers(1, 40))
def test_counting_by_bands_changes_nothing(
    truth: np.ndarray, prediction: np.ndarray, band: int
) -> None:
    whole, banded = ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES)
    whole.update(truth, prediction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BAND", band)
        banded.update(truth, prediction)
    np.testing.assert_array_equal(banded.counts, whole.counts)
    assert whole.counts.sum() == (truth != 255).sum()


@given(truths, predictions, st.sampled_from([("cat",), ("dog",), CLASSES, ()]))
def test_classes_that_are_left_out_are_background(
    truth: np.ndarray, prediction: np.ndarray, dropped: tuple[str, ...]
) -> None:
    matrix = ConfusionMatrix(CLASSES)
    matrix.update(truth, prediction)
    kept = [name for name in CLASSES if name not in dropped]
    ids = np.zeros(256, np.uint8)
    ids[255] = 255
    for number, name in enumerate(kept, start=1):
        ids[CLASSES.index(name) + 1] = number
    expected = ConfusionMatrix(kept)
    expected.update(ids[truth], ids[prediction])
    found = matrix.without(dropped)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert (found.classes, found.images) == (kept, 1)


def test_nothing_seen_gives_no_figures() -> None:
    assert ConfusionMatrix(CLASSES).summary()["miou"] is None


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "2 by 3 pixels"),
        (np.full((1, 1), 3, np.uint8), np.zeros((1, 1), np.uint8), r"truth has the ids \[3\]; exp"),
        (np.zeros((1, 1), np.uint8), np.full((1, 1), 3, np.uint8), r"ion has the ids \[3\]; exp"),
        (
            np.array([[0, 255]], np.uint8),
            np.array([[4, 254]], np.uint8),
            r"prediction has the ids \[4, 254\]; expected 0 to 2, and 255",
        ),
    ],
)
def test_masks_that_can_not_be_compared(
    truth: np.ndarray, prediction: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(CLASSES).update(truth, prediction)


@given(
    truths,
    arrays(np.float32, (2, 5, 6), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.875, 1.0])),
    st.sampled_from([(1, 2), (1,), (2,), ()]),
)
def test_threshold_sweep_equals_a_mask_at_every_threshold(
    truth: np.ndarray, cam: np.ndarray, class_ids: tuple[int, ...]
) -> None:
    cam = cam[: len(class_ids)]
    thresholds = np.array([0.0, 0.125, 0.3, 0.5, 1.0], np.float32)
    ids, counts = sweep_thresholds(truth, cam, thresholds)
    assert set(ids) == set(truth.ravel()) - {255}
    for threshold, at_threshold in zip(thresholds, counts, strict=True):
        mask = np.zeros(truth.shape, np.uint8)
        for y, x in np.ndindex(truth.shape):
            if len(cam) and cam[:, y, x].max() > threshold:
                mask[y, x] = class_ids[cam[:, y, x].argmax()]
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(truth, mask)
        dense = np.zeros_like(matrix.counts)
        dense[np.ix_(ids, np.array([0, *class_ids]))] = at_threshold
        np.testing.assert_array_equal(dense, matrix.counts)


def test_a_photos_counts_stay_small_with_many_classes() -> None:
    cam = np.random.default_rng(0).random((3, 6, 8), dtype=np.float32)
    truth = np.full((24, 32), 200, np.uint8)
    ids, counts = sweep_thresholds(truth, cam, np.linspace(0, 1, 101, dtype=np.float32))
    assert ids.tolist() == [200] and counts.shape == (101, 1, 4)
    assert (counts.sum(axis=(1, 2)) == truth.size).all()


def naive_best_overlaps(truth: np.ndarray, found: np.ndarray) -> list[float]:
    best = []
    for true_object in sorted({*truth.ravel().tolist()} - {0, 255}):
        overlaps = [0.0]
        for found_object in {*found.ravel().tolist()} - {0, 255}:
            ours, its = (found == found_object) & (truth != 255), truth == true_object
            overlaps.append((ours & its).sum() / (ours | its).sum())
        best.append(max(overlaps))
    return best


objects = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 7, 254, 255]))


@given(objects, objects)
def test_best_overlaps_are_the_naive_ones(truth: np.ndarray, found: np.ndarray) -> None:
    np.testing.assert_allclose(best_overlaps(truth, found), naive_best_overlaps(truth, found))
