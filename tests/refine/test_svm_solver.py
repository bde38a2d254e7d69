"""The solver against scikit-learn's SVC and the conditions of optimality."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.svm import SVC

from weakseg.refine import svm_solver
from weakseg.refine.svm_solver import Kernel, KernelRows, PairSVM


def clouds(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that overlap, float32 (n, 5), and 1 or -1 for each point."""
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(count) < 0.4, 1.0, -1.0)
    y[:2] = 1, -1
    return (rng.normal(size=(count, 5)) + 0.7 * y[:, None]).astype(np.float32), y


def matrix(kernel: Kernel, points: np.ndarray) -> np.ndarray:
    points = points.astype(np.float64)
    if kernel.name == "linear":
        gram: np.ndarray = points @ points.T
    else:
        gram = np.exp(-kernel.gamma * np.square(points[:, None] - points).sum(axis=2))
    return gram


def objective(gram: np.ndarray, coefficients: np.ndarray, y: np.ndarray) -> float:
    return float(coefficients @ gram @ coefficients / 2 - y @ coefficients)


def violation(svm: PairSVM, y: np.ndarray, gram: np.ndarray, C: float) -> float:
    gradient = y - gram @ svm.coefficients
    up = svm.coefficients < np.maximum(C * y, 0)
    low = svm.coefficients > np.minimum(C * y, 0)
    return float(gradient[up].max() - gradient[low].min())


def trained(kernel: Kernel, points: np.ndarray, y: np.ndarray, C: float) -> PairSVM:
    svm = PairSVM(KernelRows(kernel, points), C)
    svm.fit(y)
    return svm


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("kernel", [Kernel("rbf", 0.3), Kernel("linear")])
def test_optimum_is_scikit_learns(kernel: Kernel, C: float) -> None:
    points, y = clouds(300)
    svm, gram = trained(kernel, points, y, C), matrix(kernel, points)
    model = SVC(kernel="precomputed", C=C, tol=1e-6).fit(gram, y)
    expected = np.zeros(len(y))
    expected[model.support_] = model.dual_coef_[0]
    assert objective(gram, svm.coefficients, y) == pytest.approx(
        objective(gram, expected, y), rel=1e-3
    )
    decisions = svm.outputs + svm.bias
    np.testing.assert_allclose(decisions, model.decision_function(gram), atol=0.02)


@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([0.05, 1.0, 10.0]))
def test_conditions_of_optimality(count: int, seed: int, C: float) -> None:
    points, y = clouds(count, seed)
    kernel = Kernel("rbf", 0.5)
    svm, gram = trained(kernel, points, y, C), matrix(kernel, points)
    assert abs(svm.coefficients.sum()) < 1e-9
    assert (svm.coefficients * y >= 0).all() and (abs(svm.coefficients) <= C).all()
    np.testing.assert_allclose(svm.outputs, gram @ svm.coefficients, atol=1e-3)
    assert violation(svm, y, gram, C) < 2 * svm_solver.TOLERANCE


def test_another_training_starts_from_the_last_and_ends_at_the_same_optimum() -> None:
    points, y = clouds(300)
    other = np.where(np.arange(300) % 9 == 0, -y, y)
    kernel = Kernel("rbf", 0.3)
    warm, gram = trained(kernel, points, y, 1.0), matrix(kernel, points)
    warm.fit(other)
    cold = trained(kernel, points, other, 1.0)
    assert objective(gram, warm.coefficients, other) == pytest.approx(
        objective(gram, cold.coefficients, other), rel=1e-3
    )
    assert violation(warm, other, gram, 1.0) < 2 * svm_solver.TOLERANCE


def test_samples_of_other_classes_take_no_part() -> None:
    points, y = clouds(200)
    y[::3] = 0
    kernel = Kernel("rbf", 0.3)
    svm = trained(kernel, points, y, 1.0)
    alone = trained(kernel, points[y != 0], y[y != 0], 1.0)
    assert not svm.coefficients[y == 0].any()
    np.testing.assert_allclose(
        svm.outputs[y != 0] + svm.bias, alone.outputs + alone.bias, atol=0.01
    )


def test_rows_that_are_given_up_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, y = clouds(200)
    kernel = Kernel("rbf", 0.3)
    whole = trained(kernel, points, y, 1.0)
    monkeypatch.setattr(svm_solver, "_STORE_BYTES", 4 * 200 * 150)
    few = trained(kernel, points, y, 1.0)
    assert few._rows.capacity == 150
    np.testing.assert_allclose(few.outputs + few.bias, whole.outputs + whole.bias, atol=0.01)


def test_a_training_that_gets_nowhere_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    points, y = clouds(300)
    monkeypatch.setattr(svm_solver, "_STEPS", 500)
    svm = trained(Kernel("linear"), points, y, 1e6)
    gram = matrix(Kernel("linear"), points)
    assert violation(svm, y, gram, 1e6) > svm_solver.TOLERANCE
    assert abs(svm.coefficients.sum()) < 1e-6 * 1e6
    assert (svm.coefficients * y >= 0).all() and np.isfinite(svm.outputs).all()


@pytest.mark.parametrize("kernel", [Kernel("rbf", 0.3), Kernel("linear")])
def test_the_same_point_with_both_labels(kernel: Kernel) -> None:
    points = np.ones((6, 5), np.float32)
    y = np.array([1.0, -1, 1, -1, 1, -1])
    svm = trained(kernel, points, y, 1.0)
    assert np.isfinite(svm.outputs).all()
    np.testing.assert_allclose(svm.outputs + svm.bias, 0, atol=1e-3)


def test_one_sample_a_class() -> None:
    points = np.array([[0, 0], [3, 4]], np.float32)
    svm = trained(Kernel("linear"), points, np.array([-1.0, 1]), 10.0)
    np.testing.assert_allclose(svm.outputs + svm.bias, [-1, 1], atol=1e-3)
