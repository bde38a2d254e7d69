"""The fully connected CRF in torch's operators, for a GPU: see `weakseg.refine.crf`."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Embedding(NamedTuple):
    """Where the pixels of a kernel lie among the vertices of the permutohedral lattice.

    Attributes:
        features: float32 (d, N), in standard deviations, >= 0.
        scale: float32 (d,), of each feature.
        strides: int64 (d,), and with `origin` the key of a vertex: see `crf._embedding`.
        steps: int64 (d + 1,), by which a key grows along each direction.
        origin: see `strides`.
        compat: the kernel's weight, > 0.
    """

    features: Tensor
    scale: Tensor
    strides: Tensor
    steps: Tensor
    origin: int
    compat: float


def mean_field(unary: Tensor, embeddings: Sequence[Embedding], iterations: int) -> Tensor:
    """The label probabilities (N, n) after some updates, from unary potentials (N, n), float32."""
    kernels = [_Kernel(embedding) for embedding in embeddings]
    scores = unary.amin(dim=1, keepdim=True) - unary
    probabilities = torch.softmax(scores, dim=1)
    for _ in range(iterations):
        updated = scores.clone()
        for kernel in kernels:
            updated += kernel.filter(probabilities)
        probabilities = torch.softmax(updated, dim=1)
    return probabilities


class _Kernel:
    """A Gaussian filter on the lattice, normalised on both sides and weighed.

    Sums run in a fixed order: over a pixel's vertices, and over a vertex's pixels, sorted by it.
    """

    def __init__(self, embedding: Embedding) -> None:
        keys, self._weights = _simplices(embedding)
        vertex_keys, self._vertices = torch.unique(keys, return_inverse=True)
        self._order = self._vertices.flatten().argsort(stable=True)
        self._pixels = self._order // keys.shape[1]
        self._counts = torch.bincount(self._vertices.flatten(), minlength=len(vertex_keys))
        self._neighbours = [
            (_find(vertex_keys, vertex_keys + step), _find(vertex_keys, vertex_keys - step))
            for step in embedding.steps.tolist()
        ]
        norms = self.filter(self._weights.new_ones(len(keys), 1))
        self._weights = self._weights * (embedding.compat / norms).sqrt()

    def filter(self, values: Tensor) -> Tensor:
        """Splat, blur and slice values (N, n)."""
        shares = self._weights.flatten()[self._order, None] * values[self._pixels]
        splatted = torch.segment_reduce(shares, "sum", lengths=self._counts)
        at_vertices = self._blur(splatted)[self._vertices]
        return torch.einsum("pvn,pv->pn", at_vertices, self._weights)

    def _blur(self, values: Tensor) -> Tensor:
        """Convolve with (1/2, 1, 1/2) along one direction after the other."""
        nothing = values.new_zeros(1, values.shape[1])
        for ahead, behind in self._neighbours:
            padded = torch.cat([values, nothing])
            values = values + (padded[ahead] + padded[behind]) / 2
        return values


def _find(keys: Tensor, wanted: Tensor) -> Tensor:
    """Where in ascending keys the wanted ones are; their number where one isn't among them."""
    places = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where(keys[places] == wanted, places, len(keys))


def _simplices(embedding: Embedding) -> tuple[Tensor, Tensor]:
    """The d + 1 vertices around each pixel: keys, int64, and weights, float32, (N, d + 1) each.

    Adams et al., section 3.1; the steps are `crf._locate`'s, for all pixels at once.
    """
    scaled = embedding.features * embedding.scale[:, None]
    dims, corners = len(scaled), len(scaled) + 1
    axes = torch.arange(1, corners, device=scaled.device)
    sums = scaled.flip(0).cumsum(0).flip(0)  # of this feature and those behind it
    position = torch.cat([sums[:1], sums.roll(-1, 0) - axes[:, None] * scaled])
    position[dims] = -dims * scaled[dims - 1]

    multiple = torch.floor(position / corners + 0.5)
    residual = position - multiple * corners
    by_size = residual.argsort(dim=0, descending=True, stable=True)
    in_order = torch.arange(corners, device=scaled.device)[:, None].expand_as(by_size)
    rank = torch.empty_like(by_size).scatter_(0, by_size, in_order) + multiple.sum(0).long()
    wrap = corners * ((rank < 0).long() - (rank > dims).long())
    column = dims - (rank + wrap)
    share = torch.empty_like(residual).scatter_(0, column, (residual - wrap) / corners)
    weights = share - share.roll(1, 0)
    weights[0] += 1

    cell = (multiple.long() * corners + wrap)[:dims]
    first = embedding.origin + (cell * embedding.strides[:, None]).sum(0)
    direction = torch.empty_like(column).scatter_(0, column, in_order)
    taken = embedding.steps[direction].cumsum(0).roll(1, 0)
    taken[0] = 0
    return (first + taken).T, weights.T
