from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.networks.pooling import AVERAGE, Pooling, pool_maps

MAPS = torch.tensor([[[[4.0, 1.0, 3.0], [2.0, 0.0, 8.0]], [[-1.0, -2.0, 5.0], [0.0, 1.0, 3.0]]]])


def test_the_mean_is_global_average_pooling() -> None:
    assert pool_maps(MAPS, AVERAGE).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(("share", "expected"), [(0.01, 8.0), (0.5, 5.0), (1.0, 3.0)])
def test_the_best_cells_are_a_share_and_one_at_least(share: float, expected: float) -> None:
    assert pool_maps(MAPS, Pooling("best", share))[0, 0] == expected


def test_ranks_have_weights_that_halve_over_the_share() -> None:
    ranked = sorted([4.0, 1.0, 3.0, 2.0, 0.0, 8.0], reverse=True)
    weights = [0.5 ** (rank / 3) for rank in range(6)]
    expected = sum(w * value for w, value in zip(weights, ranked, strict=True)) / sum(weights)
    assert pool_maps(MAPS, Pooling("ranked", 0.5))[0, 0] == pytest.approx(expected)


def test_hybrid_pooling_is_of_means_and_maxima_of_parts() -> None:
    maps = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    expected = 2 * maps.mean(dim=(2, 3))
    for parts in (1, 2, 4):
        tall, wide = 8 // parts, 12 // parts
        cells = maps.reshape(2, 3, parts, tall, parts, wide).amax(dim=(3, 5))
        expected += cells.mean(dim=(2, 3))
    torch.testing.assert_close(pool_maps(maps, Pooling("hybrid")), expected / 5)


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float32, (1, 2, 3, 5), elements=st.floats(-10, 10, width=32)),
    st.sampled_from(["mean", "best", "ranked", "hybrid"]),
    st.floats(0.01, 1),
)
def test_a_logit_lies_between_the_mean_and_the_maximum(maps: Any, name: Any, share: float) -> None:
    found = pool_maps(torch.from_numpy(maps), Pooling(name, share)).numpy()
    assert (found <= maps.max(axis=(2, 3)) + 1e-4).all()
    assert (found >= maps.mean(axis=(2, 3)) - 1e-4).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "median"}, r"name\n.*'mean'"),
        ({"share": 0.0}, r"share\n.* greater than 0"),
    ],
)
def test_a_value_out_of_its_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pooling(**values)
