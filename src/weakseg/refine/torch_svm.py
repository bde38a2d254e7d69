"""Self-enhanced SVMs of many images at once, in torch's operators, for a GPU.

The same dual as in `weakseg.refine.svm_solver`, ended at the same tolerance. All pairs of classes
of all images take each step of SMO together (second-order selection, Fan, Chen and Lin, JMLR 6,
2005), on whole kernel matrices: a step is a few operators on a GPU, however many SVMs take it.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.refine.devices import to_device
from weakseg.refine.settings import KernelName
from weakseg.refine.svm_solver import FLAT, TOLERANCE, class_means

GRAM_BYTES = 2**30
"""Most memory for the kernel matrices of images that are trained together."""

_STEPS = 1000
"""Most steps of a training for each sample, of which some are usual: with a high C it may stall."""

_UNWATCHED = 32
"""Steps between two looks at whether all SVMs have ended: each look waits for the GPU."""

_BLOCK = 4096
"""Pixels whose kernel with the samples is computed at once."""


class Problem(NamedTuple):
    """One image.

    Attributes:
        pixels: float32 (D, p).
        samples: float32 (n, D), the features of those that it learns from.
        labels: (n,), in 0..m-1, each of which occurs; m >= 2.
        gamma: the width of the RBF kernel.
    """

    pixels: NDArray[np.float32]
    samples: NDArray[np.float32]
    labels: NDArray[np.intp]
    gamma: float


class Labelled(NamedTuple):
    """What `self_enhance` finds: scores float32 (m, p), and how many cycles were taken."""

    scores: NDArray[np.float32]
    cycles: int


def fits(samples: int) -> bool:
    """Whether there is room for the kernel matrix of an image of so many samples."""
    return 4 * samples**2 <= GRAM_BYTES


def self_enhance(
    problems: Sequence[Problem], kernel: KernelName, C: float, cycles: int, device: torch.device
) -> list[Labelled]:
    """Train each image's SVMs, relabel its samples, and so on; then score all its pixels.

    What `svm.refine_with_svm` does, to the trainings' tolerance.

    Args:
        problems: the images, each of which `fits`.
        kernel: the SVMs' kernel.
        C: the price of a sample on the wrong side.
        cycles: the most trainings after the first.
        device: where all of it happens.
    """
    return [
        labelled
        for group in _groups(problems)
        for labelled in _Batch(group, kernel, C, device).run(cycles)
    ]


def _groups(problems: Sequence[Problem]) -> Iterator[list[Problem]]:
    """The problems in order, as many together as there is memory for their kernel matrices."""
    group: list[Problem] = []
    for problem in problems:
        largest = max(len(other.samples) for other in (*group, problem))
        if group and 4 * (len(group) + 1) * largest**2 > GRAM_BYTES:
            yield group
            group = []
        group.append(problem)
    if group:
        yield group


class _Batch:
    """Images that are trained together; those with fewer samples are padded by some of label -1."""

    def __init__(
        self, problems: Sequence[Problem], kernel: KernelName, C: float, device: torch.device
    ) -> None:
        self._problems, self._kernel, self._C, self._device = problems, kernel, C, device
        most = max(len(problem.samples) for problem in problems)
        samples = np.zeros((len(problems), most, len(problems[0].pixels)), np.float32)
        labels = np.full((len(problems), most), -1)
        for image, problem in enumerate(problems):
            samples[image, : len(problem.samples)] = problem.samples
            labels[image, : len(problem.samples)] = problem.labels
        self._samples, self._labels = to_device(samples, device), to_device(labels, device)
        gammas = torch.tensor([problem.gamma for problem in problems], device=device)
        self._gammas = gammas.view(-1, 1, 1)
        self._gram = self._matrix(self._samples, self._samples.mT, self._gammas)
        pairs: list[tuple[int, int, int]] = []
        self._own, self._means = [], []
        for image, problem in enumerate(problems):
            classes, first = int(problem.labels.max()) + 1, len(pairs)
            pairs += [(image, i, j) for i, j in itertools.combinations(range(classes), 2)]
            self._own.append(slice(first, len(pairs)))
            self._means.append(to_device(class_means(classes), device))
        self._image, self._first, self._second = torch.tensor(pairs, device=device).T
        self._coefficients = torch.zeros(len(pairs), most, dtype=torch.float64, device=device)
        self._outputs = torch.zeros_like(self._coefficients)
        self._bias = self._coefficients.new_zeros(len(pairs))

    def run(self, cycles: int) -> list[Labelled]:
        """Train, and train again on what is predicted."""
        taken = [0] * len(self._problems)
        active = list(range(len(self._problems)))
        self._fit(active)
        for _ in range(cycles):
            active = [image for image in active if self._relabel(image)]
            if not active:
                break
            for image in active:
                taken[image] += 1
            self._fit(active)
        return [Labelled(self._scores(image), cycles) for image, cycles in enumerate(taken)]

    def _scores(self, image: int) -> NDArray[np.float32]:
        """One score for each class and pixel of an image, float32 (m, p)."""
        own = self._own[image]
        coefficients = self._coefficients[own].float()
        bias = self._bias[own].float()[:, None]
        support = coefficients.any(dim=0)
        coefficients, vectors = coefficients[:, support], self._samples[image, support]
        means, gamma = self._means[image], self._gammas[image]
        pixels = to_device(self._problems[image].pixels, self._device)
        margins = [
            coefficients @ self._matrix(vectors, block, gamma) for block in pixels.split(_BLOCK, 1)
        ]
        return np.asarray((means @ (torch.cat(margins, dim=1) + bias)).cpu().numpy())

    def _relabel(self, image: int) -> bool:
        """Give an image's samples the labels predicted, if they change and leave no class empty."""
        own, count = self._own[image], len(self._problems[image].samples)
        margins = (self._outputs[own] + self._bias[own, None]).float()[:, :count]
        predicted = (self._means[image] @ margins).argmax(dim=0)
        labels = self._labels[image, :count]
        if torch.equal(predicted, labels) or len(predicted.unique()) < len(labels.unique()):
            return False
        labels.copy_(predicted)
        return True

    def _fit(self, images: list[int]) -> None:
        """Train the SVMs of some images on their labels, from nothing."""
        own = torch.isin(self._image, torch.tensor(images, device=self._device))
        of_image = self._image[own]
        labels = self._labels[of_image]
        positive, negative = (labels == side[own, None] for side in (self._first, self._second))
        y = positive.double() - negative.double()
        solved = _solve(self._gram, of_image, y, self._C)
        self._coefficients[own], self._outputs[own], self._bias[own] = solved

    def _matrix(self, left: Tensor, right: Tensor, gamma: Tensor) -> Tensor:
        """The kernel of points (..., m, D) with points (..., D, n)."""
        products = left @ right
        if self._kernel == "linear":
            return products
        norms = left.square().sum(-1, keepdim=True) + right.square().sum(-2, keepdim=True)
        return products.mul_(2).sub_(norms).mul_(gamma).exp_()


def _solve(gram: Tensor, image: Tensor, y: Tensor, C: float) -> tuple[Tensor, Tensor, Tensor]:
    """Train SVMs by SMO, all of them at once, until none violates the conditions of optimality.

    With a C so high that this takes more than `_STEPS` steps a sample they end short of it.

    Args:
        gram: float32 (B, n, n), a kernel matrix for each image.
        image: (Q,), the image of each SVM.
        y: float64 (Q, n): 1, -1, or 0 for samples that take no part.
        C: the price of a sample on the wrong side.

    Returns:
        Signed coefficients (Q, n), outputs without bias (Q, n), and biases (Q,), float64.
    """
    upper, lower = (C * y).clamp(min=0), (C * y).clamp(max=0)
    coefficients, outputs = torch.zeros_like(y), torch.zeros_like(y)
    diagonal = gram.diagonal(dim1=1, dim2=2)[image].double()
    svms = torch.arange(len(y), device=y.device)
    for step in range(_STEPS * y.shape[1]):
        gradient = y - outputs
        up, low = coefficients < upper, coefficients > lower
        highest, i = gradient.masked_fill(~up, -torch.inf).max(dim=1)
        falls = highest[:, None] - gradient.masked_fill(~low, torch.inf)
        violation = falls.amax(dim=1)
        if step % _UNWATCHED == 0 and not bool((violation >= TOLERANCE).any()):
            break
        risen = gram[image, i].double()
        curvatures = (diagonal[svms, i, None] + diagonal - 2 * risen).clamp_(min=FLAT)
        falls.clamp_(min=0)
        j = (falls.square() / curvatures).argmax(dim=1)
        room_i = (upper - coefficients)[svms, i]
        room_j = (coefficients - lower)[svms, j]
        wanted = falls[svms, j] / curvatures[svms, j]
        taken = torch.minimum(wanted, torch.minimum(room_i, room_j))
        taken = torch.where(violation >= TOLERANCE, taken, 0)
        at_i, at_j = coefficients[svms, i] + taken, coefficients[svms, j] - taken
        coefficients[svms, i] = torch.where(taken < room_i, at_i, upper[svms, i])
        coefficients[svms, j] = torch.where(taken < room_j, at_j, lower[svms, j])
        outputs += taken[:, None] * (risen - gram[image, j].double())
    gradient = y - outputs
    free = (coefficients < upper) & (coefficients > lower)
    middle = highest - violation / 2
    counts = free.sum(dim=1)
    means = (gradient * free).sum(dim=1) / counts.clamp(min=1)
    return coefficients, outputs, torch.where(counts > 0, means, middle)
