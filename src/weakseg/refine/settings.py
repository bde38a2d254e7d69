"""The numbers of the SVM, the CRF, the random walk and PAR, without what they take to import."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from weakseg.localize.seeds import check_thresholds
from weakseg.refine.samples import Sampling
from weakseg.strict import checked

KernelName = Literal["rbf", "linear"]
Count = Annotated[int, Field(ge=0, le=1000)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


@checked
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
    samples_per_class: Annotated[int, Field(ge=1)] = 2500
    sampling: Sampling = "probability"
    exclusion_threshold: Annotated[float, Field(ge=-1, le=1)] | None = 0.2
    cycles: Count = 5
    kernel: KernelName = "rbf"
    C: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    gamma: float | Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        check_thresholds(self.foreground_threshold, self.background_threshold)
        if self.gamma != "scale" and not 1e-9 <= self.gamma <= 1e3:
            raise ValueError(f"gamma is {self.gamma}; it must be 'scale', or in [1e-9, 1e3]")


@checked
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

    gaussian_sxy: Deviation
    gaussian_compat: Weight
    bilateral_sxy: Deviation
    bilateral_srgb: Deviation
    bilateral_compat: Weight
    iterations: Count = 10

    def scaled(self, factor: float) -> "CRFSettings":
        """For a photo of `factor` times the size."""
        if factor == 1:
            return self
        near, far = self.gaussian_sxy * factor, self.bilateral_sxy * factor
        return replace(self, gaussian_sxy=near, bilateral_sxy=far)


@checked
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

    radius: Annotated[int, Field(ge=2, le=32)] = 5
    beta: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    steps: Annotated[int, Field(ge=0, le=2**16)] = 256
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.0


@checked
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

    iterations: Count = 10
    dilations: Annotated[
        tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1, max_length=16)
    ] = (1, 2, 4, 8, 12, 24)
    width: Annotated[float, Field(ge=0.01, le=100)] = 0.3
    position_weight: Annotated[float, Field(ge=0, le=100)] = 0.01
    scale: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if len(set(self.dilations)) < len(self.dilations):
            raise ValueError(f"dilations is {self.dilations}; expected different integers")


@checked
class SpreadSettings:
    """How `spread` works; the defaults were chosen on VOC's train photos (docs/benchmarks.md).

    Attributes:
        power: of the affinities, over 0 and up to 100; higher lets fewer cells in.
        steps: how often maps are averaged, 0 to 1000.
        sharpening: the power of the maps at the start, over 0 and up to 100.

    Raises:
        ValueError: a value is out of its range.
    """

    power: Annotated[float, Field(gt=0, le=100)] = 4.0
    steps: Count = 4
    sharpening: Annotated[float, Field(gt=0, le=100)] = 2.0
