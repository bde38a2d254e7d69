"""The numbers of the SVM, the CRF, the random walk and PAR, without what they take to import."""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from weakseg.localize.seeds import check_thresholds
from weakseg.refine.samples import Sampling

KernelName = Literal["rbf", "linear"]


@dataclass(frozen=True)
class SVMSettings:
    """How `refine_with_svm` works; the defaults are Lyu et al.'s.

    The paper names no kernel: `kernel`, `C` and `gamma` are scikit-learn's defaults.

    Attributes:
        foreground_threshold: T_fg (eq. 3), in [background_threshold, 1].
        background_threshold: T_bg (eq. 3), in [0, foreground_threshold].
        samples_per_class: the most pixels drawn of each class, background included; at least 1.
        sampling: how foreground pixels are drawn; see `samples.select_samples`.
        exclusion_threshold: T_s (eq. 8), in [-1, 1]; None excludes nothing.
        cycles: how often samples are relabelled and the SVM trained anew, 0 to 1000; labels settle
            after some ten.
        kernel: the SVM's kernel.
        C: the price of a sample on the wrong side, 1e-6 to 1e6: beyond, float32 can't tell what a
            step gains.
        gamma: the width of the RBF kernel, 1e-9 to 1e3, between which samples are neither all
            alike nor all strangers to float32; "scale" is 1 / (D * variance of the samples).

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
            "cycles": (0 <= self.cycles <= 1000, "in [0, 1000]"),
            "kernel": (self.kernel in get_args(KernelName), f"one of {get_args(KernelName)}"),
            "C": (1e-6 <= self.C <= 1e6, "in [1e-6, 1e6]"),
            "gamma": (
                self.gamma == "scale"
                or (not isinstance(self.gamma, str) and 1e-9 <= self.gamma <= 1e3),
                "'scale', or in [1e-9, 1e3]",
            ),
        }
        for name, (valid, accepted) in checks.items():
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {accepted}")


@dataclass(frozen=True)
class CRFSettings:
    """Kernels of the CRF and the number of mean field iterations.

    Attributes:
        gaussian_sxy: Standard deviation of the position kernel, in pixels, 1e-6 to 1e6.
        gaussian_compat: Weight of the position kernel, 0 to 1e4; 0 leaves the kernel out.
        bilateral_sxy: Standard deviation of the bilateral kernel in position, in pixels, likewise.
        bilateral_srgb: Standard deviation of the bilateral kernel in colour, in grey levels
            (0..255), 1e-6 to 1e6.
        bilateral_compat: Weight of the bilateral kernel, 0 to 1e4; 0 leaves the kernel out.
        iterations: Number of mean field updates, 0 to 1000; some ten converge.

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
                whole = 0 <= value <= 1000 and value == int(value)
                valid, accepted = whole, "an integer in [0, 1000]"
            elif field.name.endswith("compat"):
                valid, accepted = 0 <= value <= 1e4, "a number in [0, 1e4]"
            else:
                valid, accepted = 1e-6 <= value <= 1e6, "a number in [1e-6, 1e6]"
            if not valid:
                raise ValueError(f"{field.name} is {value!r}; expected {accepted}")

    def scaled(self, factor: float) -> "CRFSettings":
        """For a photo of `factor` times the size."""
        if factor == 1:
            return self
        near, far = self.gaussian_sxy * factor, self.bilateral_sxy * factor
        return replace(self, gaussian_sxy=near, bilateral_sxy=far)


@dataclass(frozen=True)
class RandomWalkSettings:
    """Which cells a walk goes to, and how far.

    Attributes:
        radius: a step leads to cells nearer than this, in cells; an integer in [2, 32], since
            memory grows with its square, and time with the fourth power.
        beta: power of the affinities, in (0, 1e6]; the higher, the fewer boundaries are crossed.
        steps: number of steps, an integer in [0, 65536]: long before, all cells that a walk can
            reach are alike.
        tolerance: the walk stops early, once the weights of all polynomials still to come add up
            to no more than this, in [0, 0.5]. Cells then differ by a few times as much, in shares
            of the start's maximum. 0: by no more than float32's rounding.

    Raises:
        ValueError: a value is outside its range.
    """

    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.radius <= 32:
            raise ValueError(f"radius is {self.radius}; expected an integer in [2, 32]")
        if not 0 < self.beta <= 1e6:
            raise ValueError(f"beta is {self.beta}; expected a number in (0, 1e6]")
        if not 0 <= self.steps <= 2**16:
            raise ValueError(f"steps is {self.steps}; expected an integer in [0, 65536]")
        if not 0 <= self.tolerance <= 0.5:
            raise ValueError(f"tolerance is {self.tolerance}; expected a number in [0, 0.5]")


@dataclass(frozen=True)
class PARSettings:
    """How `refine_with_par` works; the defaults are the authors' (Ru et al. 2022).

    Attributes:
        iterations: how often scores are averaged, 0 to 1000.
        dilations: how far the eight neighbours are, in pixels of the size that is worked at: 1 to
            16 different integers, 1 to 256.
        width: standard deviations at which a neighbour's colour, or distance, is unlike; 0.01 to
            100.
        position_weight: of distances beside colours, 0 to 100.
        scale: the size that is worked at, as a share of the photo's, over 0 and up to 1.

    Raises:
        ValueError: a value is out of its range.
    """

    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    width: float = 0.3
    position_weight: float = 0.01
    scale: float = 0.5

    def __post_init__(self) -> None:
        dilations = self.dilations
        distinct = 1 <= len(dilations) <= 16 and len(set(dilations)) == len(dilations)
        checks = {
            "iterations": (0 <= self.iterations <= 1000, "an integer in [0, 1000]"),
            "dilations": (
                distinct and all(1 <= dilation <= 256 for dilation in dilations),
                "1 to 16 different integers in [1, 256]",
            ),
            "width": (0.01 <= self.width <= 100, "a number in [0.01, 100]"),
            "position_weight": (0 <= self.position_weight <= 100, "a number in [0, 100]"),
            "scale": (0 < self.scale <= 1, "a number in (0, 1]"),
        }
        for name, (valid, accepted) in checks.items():
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {accepted}")


@dataclass(frozen=True)
class SpreadSettings:
    """How `spread` works; the defaults were chosen on VOC's train photos (docs/benchmarks.md).

    Attributes:
        power: of the affinities, over 0 and up to 100; higher lets fewer cells in.
        steps: how often maps are averaged, 0 to 1000.
        sharpening: the power of the maps at the start, over 0 and up to 100.

    Raises:
        ValueError: a value is out of its range.
    """

    power: float = 4.0
    steps: int = 4
    sharpening: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.power <= 100:
            raise ValueError(f"power is {self.power}; expected a number in (0, 100]")
        if not 0 <= self.steps <= 1000:
            raise ValueError(f"steps is {self.steps}; expected an integer in [0, 1000]")
        if not 0 < self.sharpening <= 100:
            raise ValueError(f"sharpening is {self.sharpening}; expected a number in (0, 100]")
