"""How class maps become CAMs, without what it takes to import them."""

from typing import Literal

from weakseg.strict import checked

Flip = Literal["sum", "maximum", "sum_before_relu"]
Normalize = Literal["sum", "each_scale"]
Maximum = Literal["class", "photo"]

Method = Literal["grad-cam", "hirescam", "layer-cam"]
"""See `weakseg.localize.gradcam`."""


@checked
class Merging:
    """How a photo's class maps at several scales, and its mirror image's, become one CAM.

    The defaults are those of Ahn et al. 2019.

    Attributes:
        flip: what the maps of the photo and of its mirror image give: "sum" after a ReLU of each;
            their "maximum" (Ru et al. 2022); or "sum_before_relu" (public code of Lyu et al.).
        normalize: whether the "sum" over the scales alone is divided by its maximum, or the maps of
            "each_scale" as well, so that all scales count alike.
        maximum: whether that is the maximum of each "class", or that of all tags of a "photo"
            (public code of Dobko et al.): a class that is weaker than another stays so.

    Raises:
        ValueError: a value is none of these.
    """

    flip: Flip = "sum"
    normalize: Normalize = "sum"
    maximum: Maximum = "class"
