"""The numbers of the SVM, the CRF and the random walk, without what they take to import."""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from weakseg.localize.seeds import check_thresholds
from weakseg.refine.affinity import pair_directions
from weakseg.refine.samples import Sampling

KernelName = Literal["rbf", "linear"]


@dataclass(frozen=True)
class SVMSettings:
    """How `refine_with_svm` works; the defaults are paper A's.

    The paper names no kernel: `kernel`, `C` and `gamma` are scikit-learn's defaults.

    Attributes:
        foreground_threshold: T_fg (eq. 3), in [background_threshold, 1].
        background_threshold: T_bg (eq. 3), in [0, foreground_threshold].
        samples_per_class: the most pixels drawn of each class, background included; at least 1.
        sampling: how foreground pixels are drawn; see `samples.select_samples`.
        exclusion_threshold: T_s (eq. 8), in [-1, 1]; None excludes nothing.
        cycles: how often samples are relabelled and the SVM trained anew; at least 0.
        kernel: the SVM's kernel.
        C: the price of a sample on the wrong side, over 0.
        gamma: the width of the RBF kernel, over 0; "scale" is 1 / (D * variance of the samples).

    Raises:
        ValueError: a value is out of its range.
    """

    foreground_threshold: float = 0.2
    background_threshold: float = 0.05
    samples_per_class: int = 2500
    sampling: Sampling = "probability"
    exclusion_threshold: float | None = 0.2
    cycles: int = 5
    kernel: KernelName = "rbf"
    C: float = 1.0
    gamma: float | Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        check_thresholds(self.foreground_threshold, self.background_threshold)
        exclusion = self.exclusion_threshold
        checks = {
            "samples_per_class": (self.samples_per_class >= 1, "at least 1"),
            "sampling": (self.sampling in get_args(Sampling), f"one of {get_args(Sampling)}"),
            "exclusion_threshold": (
                exclusion is None or -1 <= exclusion <= 1,
                "None or in [-1, 1]",
            ),
            "cycles": (self.cycles >= 0, "at least 0"),
            "kernel": (self.kernel in get_args(KernelName), f"one of {get_args(KernelName)}"),
            "C": (0 < self.C < math.inf, "over 0 and finite"),
            "gamma": (
                self.gamma == "scale"
                or (not isinstance(self.gamma, str) and 0 < self.gamma < math.inf),
                "'scale', or over 0 and finite",
            ),
        }
        for name, (valid, accepted) in checks.items():
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {accepted}")


@dataclass(frozen=True)
class CRFSettings:
    """Kernels of the CRF and the number of mean field iterations.

    Attributes:
        gaussian_sxy: Standard deviation of the position kernel, in pixels, > 0.
        gaussian_compat: Weight of the position kernel, >= 0; 0 leaves the kernel out.
        bilateral_sxy: Standard deviation of the bilateral kernel in position, in pixels, > 0.
        bilateral_srgb: Standard deviation of the bilateral kernel in colour, in grey levels
            (0..255), > 0.
        bilateral_compat: Weight of the bilateral kernel, >= 0; 0 leaves the kernel out.
        iterations: Number of mean field updates, >= 0.

    Raises:
        ValueError: A value is outside its range.
    """

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    iterations: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "iterations":
                valid, accepted = value >= 0 and value == int(value), "an integer >= 0"
            elif field.name.endswith("compat"):
                valid, accepted = 0 <= value < math.inf, "a finite number >= 0"
            else:
                valid, accepted = 0 < value < math.inf, "a finite number > 0"
            if not valid:
                raise ValueError(f"{field.name} is {value!r}; expected {accepted}")


@dataclass(frozen=True)
class RandomWalkSettings:
    """Which cells a walk goes to, and how far.

    Attributes:
        radius: a step leads to cells nearer than this, in cells; an integer >= 2.
        beta: power of the affinities, a finite number > 0; the higher, the fewer boundaries are
            crossed.
        steps: number of steps, an integer >= 0.
        tolerance: the walk stops early, once the weights of all polynomials still to come add up
            to no more than this, in [0, 1). Cells then differ by a few times as much, in shares of
            the start's maximum. 0: by no more than float32's rounding.

    Raises:
        ValueError: a value is outside its range.
    """

    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        pair_directions(self.radius)
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}; expected a finite number > 0")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; expected an integer >= 0")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance}; expected a number in [0, 1)")
