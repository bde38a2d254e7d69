import numpy as np
import pytest
import torch
from torch import Tensor

from weakseg.refine import affinity, torch_affinity
from weakseg.refine.affinity import Direction, pair_directions, pair_ends, path_cells
from weakseg.refine.torch_affinity import path_maxima

SIZES = [(1, 1), (1, 7), (6, 1), (3, 4), (12, 15)]


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (5, 34), (10, 152)])
def test_every_neighbour_in_the_disc_is_paired_once(radius: int, count: int) -> None:
    directions = pair_directions(radius)
    assert len(directions) == count
    both_ways = {*directions, *((-dy, -dx) for dy, dx in directions)}
    disc = {
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if 0 < dy * dy + dx * dx < radius * radius
    }
    assert both_ways == disc
    assert len(both_ways) == 2 * count


def test_a_radius_without_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="radius is 1; expected an integer >= 2"):
        pair_directions(1)


@pytest.mark.parametrize(
    ("direction", "cells"),
    [
        (Direction(0, 3), {(0, 0), (0, 1), (0, 2), (0, 3)}),
        (Direction(2, 0), {(0, 0), (1, 0), (2, 0)}),
        (Direction(1, 1), {(0, 0), (0, 1), (1, 0), (1, 1)}),
        (Direction(1, -2), {(y, x) for y in (0, 1) for x in (0, -1, -2)}),
        (Direction(3, 3), {(y, x) for y in range(4) for x in range(4) if abs(y - x) < 2}),
    ],
)
def test_a_path_holds_the_cells_beside_the_segment(
    direction: Direction, cells: set[tuple[int, int]]
) -> None:
    path = path_cells(direction)
    assert set(path) == cells
    assert len(path) == len(set(path))


def test_a_path_is_the_same_from_both_ends() -> None:
    for direction in pair_directions(10):
        dy, dx = direction
        path = path_cells(direction)
        assert {(dy - y, dx - x) for y, x in path} == set(path)


def naive_maximum(values: Tensor, y: int, x: int, direction: Direction) -> Tensor:
    return torch.stack([values[y + dy, x + dx] for dy, dx in path_cells(direction)]).amax()


def pairs(direction: Direction, height: int, width: int) -> list[tuple[int, int]]:
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if y + direction.dy < height and 0 <= x + direction.dx < width
    ]


@pytest.mark.parametrize("radius", [2, 5, 10])
@pytest.mark.parametrize("size", SIZES)
def test_path_maxima_agree_with_looking_at_every_cell(size: tuple[int, int], radius: int) -> None:
    values = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    found = dict(path_maxima(values, radius))
    for direction in pair_directions(radius):
        starts = pairs(direction, *size)
        assert (direction in found) == bool(starts)
        if starts:
            expected = [
                [naive_maximum(image, y, x, direction) for y, x in starts] for image in values
            ]
            assert found[direction].flatten(1).tolist() == torch.tensor(expected).tolist()


def test_path_maxima_pass_the_gradient_to_the_highest_cell() -> None:
    values = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(1)).double()
    values.requires_grad_()
    torch.stack([highest.sum() for _, highest in path_maxima(values, 5)]).sum().backward()
    again = values.detach().clone().requires_grad_()
    maxima = [
        naive_maximum(again[0], y, x, direction)
        for direction in pair_directions(5)
        for y, x in pairs(direction, 7, 8)
    ]
    torch.stack(maxima).sum().backward()
    torch.testing.assert_close(values.grad, again.grad)


@pytest.mark.parametrize("size", SIZES)
def test_pair_ends_are_a_direction_apart(size: tuple[int, int]) -> None:
    cells = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))
    for direction in pair_directions(10):
        first, second = pair_ends(cells, direction)
        assert [tuple(cell) for cell in first.flatten(1).T.tolist()] == pairs(direction, *size)
        offset = torch.tensor(direction).view(2, 1, 1).expand_as(first)
        assert torch.equal(second - first, offset)


@pytest.mark.parametrize("size", SIZES)
def test_affinities_are_one_minus_the_highest_boundary(size: tuple[int, int]) -> None:
    boundary = torch.rand(size, generator=torch.Generator().manual_seed(2))
    planes = torch_affinity.affinities(boundary, 5)
    assert planes.shape == (34, *size)
    np.testing.assert_array_equal(affinity.affinities(boundary.numpy(), 5), planes.numpy())
    for plane, direction in zip(planes, pair_directions(5), strict=True):
        starts = pairs(direction, *size)
        expected = torch.zeros(size)
        for y, x in starts:
            expected[y, x] = 1 - naive_maximum(boundary, y, x, direction)
        torch.testing.assert_close(plane, expected, rtol=0, atol=0)
