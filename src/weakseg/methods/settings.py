"""Settings that several kinds of steps share, each checked where it is read."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from weakseg.files import absolute
from weakseg.names import AugmentationName
from weakseg.strict import STRICT
from weakseg.training.optimizers import Optimizer

LARGEST_SIDE = 4096
"""Pixels: what a network holds of one photo of this side takes gigabytes."""
MOST_EXAMPLES = 1_000_000

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
FilePath = Annotated[str, AfterValidator(lambda path: str(absolute(path)))]
"""A file or folder of the user's; its stamps are part of a step's fingerprint."""


def _ordered(sides: tuple[int, int]) -> tuple[int, int]:
    if sides[0] > sides[1]:
        raise ValueError(f"{list(sides)} is no range; expected [smaller, larger]")
    return sides


def _absolute_weights(source: str) -> str:
    return source if source in ("imagenet", "none") else str(absolute(source))


LongSideRange = Annotated[
    tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(le=LARGEST_SIDE)]],
    AfterValidator(_ordered),
]
Scale = Annotated[float, Field(ge=0.05, le=8)]
Scales = Annotated[tuple[Scale, ...], Field(min_length=1, max_length=16)]


class Section(BaseModel):
    """Settings of a step, or a part of them."""

    model_config = ConfigDict(frozen=True, **STRICT)


class BackboneSection(Section):
    """A network that was trained on ImageNet, without its head; see `weakseg.networks.backbones`.

    Attributes:
        name: a timm name, or one of `efficientnet_lite0/1/2`; see `weakseg list backbones --all`.
        weights: `imagenet`, `none` (random ones), or a `.safetensors` or `.pth` file.
        output_stride: pixels of a photo a cell of the final map; 32 takes a network as it is.
        dilated: whether a stride that is taken out is made up for by dilation.
        head_convolution: whether the final map is that of the convolution which EfficientNet and
            its kin have behind their last stage (of ViT and Swin: of the last norm), or the last
            stage.
        frozen_stages: how many stages, from the finest, are not trained; -1: none is.
    """

    name: str
    weights: Annotated[str, AfterValidator(_absolute_weights)] = "imagenet"
    output_stride: Literal[8, 16, 32] = 32
    dilated: bool = True
    head_convolution: bool = True
    frozen_stages: Annotated[int, Field(ge=-1)] = 0


class Training(Section):
    """How a network is trained.

    Attributes:
        epochs: how often each photo is seen.
        batch_size: photos a step, whatever the number of devices: these part it among them, and
            learning rates stay as they are.
        optimizer: which, and its learning rates.
        decay_power: the learning rate falls as `(1 - step / steps) ** decay_power`; 0 keeps it.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
    optimizer: Annotated[Optimizer, Field(discriminator="name")]
    decay_power: Annotated[float, Field(ge=0, le=100)] = 0.9

    def less_memory(self, step: str) -> str:
        """What to change where memory is short, for messages, by the name of the step."""
        return f"lower {step}.batch_size (now {self.batch_size})"


class CropTraining(Training):
    """How a network is trained on crops of photos.

    Attributes:
        backbone: what it starts from.
        long_side: the range from which a photo's longer side is drawn, in pixels.
        crop: the side of the square that is cut from it.
        augmentation: `flip` mirrors half of the photos, `strong` is that of Dobko et al. (2020,
            section 3.1).
        precision: what the network computes in.
        accumulate: in how many equal parts, one after the other, a batch passes the network; their
            gradients are added up. Memory is that of a part, steps and learning rates are those of
            the batch; what is a mean over pixels, and BatchNorm where it learns, sees a part alone.
    """

    backbone: BackboneSection | None = None
    long_side: LongSideRange = (320, 640)
    crop: Annotated[int, Field(ge=32, le=LARGEST_SIDE)] = 512
    augmentation: AugmentationName = "flip"
    precision: Precision = "32-true"
    accumulate: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] = 1

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} parts batch_size {self.batch_size} into no equal "
                "parts; choose one that divides it"
            )
        return self

    def less_memory(self, step: str) -> str:
        lower = super().less_memory(step)
        if self.backbone is None:
            return lower
        raised = f"raise {step}.accumulate (now {self.accumulate})"
        return f"{raised}, or {lower} or {step}.crop (now {self.crop})"


class PhotoTraining(CropTraining):
    """How a network is trained on crops of photos, which nothing else can take the place of."""

    backbone: BackboneSection
