"""One SVM per image that corrects its own training labels (Lyu et al., section 2.3).

Labels are local to an image, as in `weakseg.localize.seeds`: 0 is the background, `k` in
1..K the class of row `k - 1` of its CAM.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from weakseg.localize.seeds import as_cam, seed_from_cam
from weakseg.refine.samples import exclude_noisy_foreground, select_samples
from weakseg.refine.settings import SVMSettings
from weakseg.refine.svm_solver import Kernel, KernelRows, PairSVM, class_means

if TYPE_CHECKING:
    import torch

__all__ = ["SVMRefinement", "SVMSettings", "refine_many_with_svm", "refine_with_svm", "zscore"]

Outcome = Literal["svm", "cam", "no-tags"]
"""What decided an image: its SVM; its CAM, since no SVM could be trained; or the lack of tags."""

_BLOCK = 512
"""Pixels whose kernel with the support vectors is computed at once."""


@dataclass(frozen=True)
class SVMRefinement:
    """What `refine_with_svm` gives.

    Attributes:
        scores: float32 (K + 1, h, w); row 0 is the background, row k the k-th tag. The highest
            wins; the scale depends on `outcome` and on the number of classes.
        outcome: what decided the image.
        cycles: how often samples were relabelled and the SVM trained anew; 0 without an SVM.
        samples: pixels drawn per row of `scores`, before exclusion.
        excluded: of those, how many were dropped as too like the background.
    """

    scores: NDArray[np.float32]
    outcome: Outcome
    cycles: int
    samples: tuple[int, ...]
    excluded: tuple[int, ...]

    @property
    def labels(self) -> NDArray[np.int16]:
        """int16 (h, w): the row of the highest score, the first of equals."""
        labels: NDArray[np.int16] = self.scores.argmax(axis=0).astype(np.int16)
        return labels


def zscore(features: NDArray[np.floating[Any]], eps: float = 1e-10) -> NDArray[np.float32]:
    """Give each channel of one image mean 0 and standard deviation 1 (Lyu et al., section 3.1).

    A constant channel becomes zeros.

    Args:
        features: (D, h, w).
        eps: added to the standard deviation.

    Returns:
        float32 (D, h, w).

    Raises:
        ValueError: the shape is another, or a value is not finite.
    """
    _check_features(features)
    axes = (1, 2)
    mean = features.mean(axis=axes, keepdims=True, dtype=np.float64)
    normalized: NDArray[np.float32] = features.astype(np.float32) - mean.astype(np.float32)
    variance = np.square(normalized).mean(axis=axes, keepdims=True, dtype=np.float64)
    normalized /= (np.sqrt(variance) + eps).astype(np.float32)
    return normalized


def refine_with_svm(
    features: NDArray[np.floating[Any]],
    cam: NDArray[np.floating[Any]],
    settings: SVMSettings,
    rng: Generator,
) -> SVMRefinement:
    """Label every pixel of an image by an SVM that is trained on it (Lyu et al., section 2).

    Seeds come from the CAM (eq. 3), samples from the seeds (eq. 4-6), foreground samples that
    look like the background are dropped (eq. 7, 8), and a first SVM is trained on the rest. A
    cycle gives each sample the label that the current SVM predicts for it, and trains a new SVM
    on the same features. `settings.cycles` = t cycles train 1 + t SVMs, and the last one labels
    the image. Cycles end early once no label changes, since all further SVMs would be the same.

    What happens where the method as published has no answer:

    - Without a tag (K = 0) everything is background: outcome "no-tags".
    - If no background or no foreground was drawn, or the samples' features are all the same, no
      SVM can be trained. The CAM decides against a background of constant score T_fg: outcome
      "cam".
    - A tag without a sample takes no part in the SVM. Its score is everywhere 1 below the lowest
      of all others, so that it wins no pixel.
    - A cycle whose relabelling would leave a class without a sample is not taken; the SVM before
      it labels the image.

    Args:
        features: (D, h, w), float32, z-scored: see `zscore`.
        cam: (K, h, w) in [0, 1], on the same grid, a row for each of the image's tags.
        settings: thresholds, sampling, kernel and cycles.
        rng: source of the draws; `samples.image_rng` gives one for each image.

    Raises:
        ValueError: shapes disagree, or values are not finite.

    Examples:
        >>> import numpy as np, weakseg
        >>> left = np.zeros((8, 8), np.float32)
        >>> left[:, :4] = 1  # the object looks like nothing else; its CAM knows a part of it
        >>> cam = 0.9 * left[None] * (np.arange(8) < 2)
        >>> features = weakseg.zscore(np.stack([left, left + np.eye(8, dtype=np.float32) / 9]))
        >>> settings = weakseg.SVMSettings(foreground_threshold=0.5, background_threshold=0.2)
        >>> found = weakseg.refine_with_svm(features, cam, settings, np.random.default_rng(0))
        >>> found.labels.shape, found.outcome
        ((8, 8), 'svm')
    """
    prepared = _prepare(features, cam, settings, rng)
    return prepared if isinstance(prepared, SVMRefinement) else _trained(prepared, settings)


def refine_many_with_svm(
    images: Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], Generator]],
    settings: SVMSettings,
    device: "torch.device",
) -> list[SVMRefinement]:
    """What `refine_with_svm` does, for many images at once in torch's operators: for a GPU.

    SVMs are the same to the tolerance of their training, and so are the scores, unless a sample
    lies so near the border that a cycle labels it the other way. Images of so many samples that
    one kernel matrix takes over 1 GiB are done one by one on the calling thread.

    Args:
        images: features, CAM and generator of each, as `refine_with_svm` takes them.
        settings: thresholds, sampling, kernel and cycles.
        device: where kernels are computed and SVMs trained.

    Raises:
        ValueError: shapes disagree, or values are not finite.
    """
    from weakseg.refine import torch_svm

    prepared = [_prepare(features, cam, settings, rng) for features, cam, rng in images]
    problems = [
        torch_svm.Problem(one.pixels, one.samples, one.labels, one.gamma)
        for one in prepared
        if isinstance(one, _Prepared) and torch_svm.fits(len(one.samples))
    ]
    found = iter(
        torch_svm.self_enhance(problems, settings.kernel, settings.C, settings.cycles, device)
    )
    refined = []
    for one in prepared:
        if isinstance(one, SVMRefinement):
            refined.append(one)
        elif torch_svm.fits(len(one.samples)):
            refined.append(one.refined(*next(found)))
        else:
            refined.append(_trained(one, settings))
    return refined


@dataclass(frozen=True)
class _Prepared:
    """An image whose samples an SVM can tell apart.

    Attributes:
        pixels: float32 (D, h * w).
        sampled: (n,), which of them the samples are.
        samples: float32 (n, D), their features.
        labels: (n,), of each sample, an index into `present`.
        present: (m,), the rows of the scores that have samples.
        gamma: the width of the RBF kernel.
        drawn, excluded: of each of all K + 1 rows.
        grid: (h, w).
    """

    pixels: NDArray[np.float32]
    sampled: NDArray[np.intp]
    samples: NDArray[np.float32]
    labels: NDArray[np.intp]
    present: NDArray[np.int16]
    gamma: float
    drawn: tuple[int, ...]
    excluded: tuple[int, ...]
    grid: tuple[int, ...]

    def refined(self, scores: NDArray[np.float32], cycles: int) -> SVMRefinement:
        """The refinement of scores (m, h * w)."""
        rows = np.arange(len(self.drawn))
        all_scores = np.empty((len(rows), scores.shape[1]), np.float32)
        all_scores[self.present] = scores
        all_scores[np.setdiff1d(rows, self.present)] = scores.min() - 1
        all_scores = all_scores.reshape(-1, *self.grid)
        return SVMRefinement(all_scores, "svm", cycles, self.drawn, self.excluded)


def _prepare(
    features: NDArray[np.floating[Any]],
    cam: NDArray[np.floating[Any]],
    settings: SVMSettings,
    rng: Generator,
) -> _Prepared | SVMRefinement:
    """The samples of an image, or how it ends where no SVM can be trained."""
    _check_features(features)
    cam = as_cam(cam)
    if cam.shape[1:] != features.shape[1:]:
        raise ValueError(f"features have the grid {features.shape[1:]}; the CAM {cam.shape[1:]}")
    rows = len(cam) + 1
    if rows == 1:
        return SVMRefinement(np.zeros((1, *cam.shape[1:]), np.float32), "no-tags", 0, (0,), (0,))

    pixels = features.astype(np.float32, copy=False).reshape(len(features), -1)
    seed = seed_from_cam(cam, settings.foreground_threshold, settings.background_threshold)
    indices, labels = select_samples(
        cam,
        seed,
        settings.samples_per_class,
        settings.foreground_threshold,
        rng,
        settings.sampling,
    )
    drawn = _count(labels, rows)
    if drawn[0] == 0 or sum(drawn[1:]) == 0:
        return SVMRefinement(_cam_scores(cam, settings), "cam", 0, drawn, (0,) * rows)

    samples = np.ascontiguousarray(pixels[:, indices].T)
    if settings.exclusion_threshold is not None:
        keep = exclude_noisy_foreground(samples, labels, settings.exclusion_threshold)
        indices, samples, labels = indices[keep], samples[keep], labels[keep]
    excluded = tuple(np.subtract(drawn, _count(labels, rows)).tolist())
    if (samples == samples[0]).all():
        return SVMRefinement(_cam_scores(cam, settings), "cam", 0, drawn, excluded)

    gamma = settings.gamma
    if isinstance(gamma, str):
        gamma = 1 / (samples.shape[1] * float(samples.var(dtype=np.float64)))
    present, targets = np.unique(labels, return_inverse=True)
    return _Prepared(
        pixels, indices, samples, targets, present, gamma, drawn, excluded, cam.shape[1:]
    )


def _trained(prepared: _Prepared, settings: SVMSettings) -> SVMRefinement:
    svm = _PixelSVM(prepared.samples, len(prepared.present), prepared.gamma, settings)
    cycles = _self_enhance(svm, prepared.labels, settings.cycles)
    return prepared.refined(svm.scores(prepared.pixels, prepared.sampled), cycles)


class _PixelSVM:
    """A soft-margin SVM, one class against one, over fixed samples with changing labels.

    Args:
        samples: float32 (n, D), not all alike.
        classes: their number m, at least 2.
        gamma: the width of the RBF kernel.
        settings: kernel and `C`.
    """

    def __init__(
        self, samples: NDArray[np.float32], classes: int, gamma: float, settings: SVMSettings
    ) -> None:
        self._samples = samples
        self._kernel = Kernel(settings.kernel, gamma)
        rows = KernelRows(self._kernel, samples)
        self._pairs = {
            pair: PairSVM(rows, settings.C) for pair in itertools.combinations(range(classes), 2)
        }
        self._means = class_means(classes)

    def fit(self, labels: NDArray[np.intp]) -> None:
        """Train on `labels` (n,), of which each value in 0..m-1 occurs."""
        for (i, j), svm in self._pairs.items():
            svm.fit((labels == i).astype(np.float64) - (labels == j))

    def sample_scores(self) -> NDArray[np.float32]:
        """One score for each class and sample, float32 (m, n): see `scores`."""
        margins = [svm.outputs + svm.bias for svm in self._pairs.values()]
        return self._means @ np.array(margins, np.float32)

    def scores(self, pixels: NDArray[np.float32], sampled: NDArray[np.intp]) -> NDArray[np.float32]:
        """One score for each class and pixel, float32 (m, p).

        By `class_means`; with two classes, plus and minus half the decision value. Votes would
        jump where a pair is nearly equal, which neither upsampling nor a softmax survives.

        Args:
            pixels: float32 (D, p).
            sampled: (n,), which of them the samples are: their scores are known.
        """
        scores = np.empty((len(self._means), pixels.shape[1]), np.float32)
        scores[:, sampled] = self.sample_scores()
        coefficients = np.array([svm.coefficients for svm in self._pairs.values()], np.float32)
        intercepts = np.array([[svm.bias] for svm in self._pairs.values()], np.float32)
        support = np.flatnonzero(coefficients.any(axis=0))
        coefficients, vectors = coefficients[:, support], self._samples[support]
        others = np.delete(np.arange(pixels.shape[1]), sampled)
        for start in range(0, len(others), _BLOCK):
            block = others[start : start + _BLOCK]
            margins = self._kernel.sums(coefficients, vectors, pixels[:, block]) + intercepts
            scores[:, block] = self._means @ margins
        return scores


def _self_enhance(svm: _PixelSVM, labels: NDArray[np.intp], cycles: int) -> int:
    """Train `svm` on `labels`, then on its own predictions; the number of cycles taken."""
    svm.fit(labels)
    classes = np.unique(labels)
    for cycle in range(cycles):
        predicted = svm.sample_scores().argmax(axis=0)
        if np.array_equal(predicted, labels) or not np.array_equal(np.unique(predicted), classes):
            return cycle
        svm.fit(predicted)
        labels = predicted
    return cycles


def _cam_scores(cam: NDArray[np.float32], settings: SVMSettings) -> NDArray[np.float32]:
    background = np.full((1, *cam.shape[1:]), settings.foreground_threshold, np.float32)
    return np.concatenate([background, cam])


def _count(labels: NDArray[np.integer[Any]], rows: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=rows).tolist())


def _check_features(features: NDArray[np.floating[Any]]) -> None:
    if features.ndim != 3 or not len(features):
        raise ValueError(f"features have shape {features.shape}; it must be (D, h, w), D >= 1")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinity; all values must be finite")
