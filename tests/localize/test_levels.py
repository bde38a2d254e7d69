from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from weakseg.localize.levels import Rule, count, find_levels


@pytest.fixture(scope="module")
def values() -> Any:
    rng = np.random.default_rng(0)
    parts = [rng.normal(mean, std, count) for mean, std, count in PARTS]
    return np.clip(np.concatenate(parts), 0, 1)


PARTS = [(0.15, 0.03, 4000), (0.45, 0.08, 1500), (0.85, 0.05, 1000)]


def test_a_mixture_is_that_of_scikit_learn(values: Any) -> None:
    started = np.array([[values[values > 0.05].min()], [np.median(values)], [values.max()]])
    mixture = GaussianMixture(3, means_init=started).fit(values[values > 0.05, None])
    belongs, order = mixture.predict(values[:, None]), mixture.means_[:, 0].argsort()
    found = find_levels(count(values), "mixture")
    assert found.low == pytest.approx(values[belongs == order[0]].max(), abs=0.02)
    assert found.high == pytest.approx(values[belongs == order[2]].min(), abs=0.02)


def test_otsu_leaves_the_least_variance_within_three_parts(values: Any) -> None:
    cuts = np.linspace(0, 1, 33)

    def within(low: float, high: float) -> float:
        parts = values < low, (values >= low) & (values < high), values >= high
        return float(sum(values[part].var() * part.sum() for part in parts if part.any()))

    best = min(within(low, high) for low in cuts for high in cuts if low <= high)
    found = find_levels(count(values), "otsu")
    assert within(*found) <= best * 1.02


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50),
    st.sampled_from(get_args(Rule)),
)
def test_levels_are_ordered_and_within_the_range(
    values: list[tuple[float, bool]], rule: Rule
) -> None:
    found, belongs = zip(*values, strict=True)
    low, high = find_levels(count(np.array(found), np.array(belongs)), rule)
    assert 0 < low <= high < 1


def test_masks_say_between_which_values_the_class_begins() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 200_000)
    belongs = rng.uniform(0, 1, len(values)) < 1 / (1 + np.exp(-(values - 0.6) / 0.05))
    found = find_levels(count(values, belongs), "masks")
    assert found.low == pytest.approx(0.6 - 0.05 * np.log(2), abs=0.01)
    assert found.high == pytest.approx(0.6 + 0.05 * np.log(2), abs=0.01)


def test_what_was_counted_apart_is_counted_together(values: Any) -> None:
    belongs = values > 0.5
    parts = [count(values[i::3], belongs[i::3]) for i in range(3)]
    together = np.sum(parts, axis=0)
    np.testing.assert_array_equal(together, count(values, belongs))
    assert find_levels(together, "otsu") == find_levels(count(values), "otsu")


@pytest.mark.parametrize("values", [[0.5, np.nan], [1.5], [-0.1]])
def test_what_is_no_map_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"not all in \[0, 1\]"):
        count(np.array(values))


def test_levels_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        find_levels(count(np.empty(0)), "otsu")
