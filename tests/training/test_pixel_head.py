from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.training.pixel_head import Cells, generalized_cross_entropy, shares_of


@pytest.mark.parametrize("q", [0.0, 0.3, 0.7, 1.0])
def test_the_loss_is_that_of_the_paper(q: float) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 1.0]])
    expected = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        powers = np.exp(row) / np.exp(row).sum()
        terms = -np.log(powers) if q == 0 else (1 - powers**q) / q
        expected.append(float((np.array(wanted) * terms).sum()))
    assert generalized_cross_entropy(logits, targets, q).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_a_class_of_no_probability_has_a_gradient(q: float) -> None:
    logits = torch.tensor([[0.0, 500.0]], requires_grad=True)
    generalized_cross_entropy(logits, torch.tensor([[1.0, 0.0]]), q).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_shares_are_those_of_each_cell() -> None:
    mask = np.array([[0, 0, 2, 2], [0, 2, 2, 255], [0, 0, 255, 255], [0, 0, 255, 255]], np.uint8)
    found = shares_of(mask, 3, 2, 2)
    assert found.dtype == np.float16
    assert found.tolist() == [[0.75, 0, 0.25, 0], [0, 0, 0.75, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.data())
def test_shares_of_a_certain_mask_add_up_to_one(
    height: int, width: int, rows: int, columns: int, data: Any
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    mask = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    np.testing.assert_allclose(shares_of(mask, 3, rows, columns).sum(axis=1), 1, atol=2e-3)


def test_an_epoch_has_every_photo_once_in_an_order_of_its_own() -> None:
    lengths = np.array([3, 0, 2, 4, 1])
    features = np.arange(10, dtype=np.float16).reshape(-1, 1)
    photos = np.arange(5).repeat(lengths)
    orders = []
    for epoch in (0, 1, 0):
        cells = Cells(features, features, lengths, batch_size=4, seed=7, epoch=epoch)
        batches = [Cells.collate([cells[i]]) for i in range(len(cells))]
        assert all(torch.equal(*batch) for batch in batches)
        of_photos = [photos[batch[0][:, 0].int().numpy()].tolist() for batch in batches]
        assert [len(set(found)) for found in of_photos] == [2, 1, 1]
        orders.append([int(value) for batch, _ in batches for value in batch])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]


def test_a_batch_has_a_photo_at_least() -> None:
    features = np.zeros((6, 1), np.float16)
    cells = Cells(features, features, np.array([3, 3]), batch_size=1, seed=0, epoch=0)
    assert [len(Cells.collate([cells[i]])[0]) for i in range(len(cells))] == [3, 3]
