"""The segmentation network: DeepLabv3+ (Chen et al. 2018) over any backbone."""

from collections.abc import Iterator

from segmentation_models_pytorch.base import initialization
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone, fill_up
from weakseg.networks.pixel_head import PixelSegmenter

_FINE_STRIDE = 4
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # Chen et al. 2018, section 4


class Segmenter(nn.Module):
    """A backbone, and DeepLabv3+'s decoder on its final map and its last stage of stride 4.

    Args:
        backbone: of output stride 8 or 16, its strides replaced by dilation as a rule.
        classes: number C of classes, without background.
        width: channels of the decoder.

    Raises:
        WeaksegError: a backbone of another output stride, or without a stage of stride 4.
    """

    def __init__(self, backbone: Backbone, classes: int, width: int = 256) -> None:
        super().__init__()
        strides = [stage.stride for stage in backbone.stages]
        if backbone.final.stride not in _RATES or _FINE_STRIDE not in strides:
            raise WeaksegError(
                f"DeepLabv3+ needs a backbone with an output stride of 8 or 16 and a stage of "
                f"stride {_FINE_STRIDE}; this one has the stages {strides} and the output stride "
                f"{backbone.final.stride}. Choose a convolutional one, with output_stride 16."
            )
        self.backbone = backbone
        self._fine = len(strides) - 1 - strides[::-1].index(_FINE_STRIDE)
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=(0, 0, backbone.stages[self._fine].channels, backbone.final.channels),
            encoder_depth=4,
            out_channels=width,
            atrous_rates=_RATES[backbone.final.stride],
            output_stride=backbone.final.stride,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
        self.head = nn.Conv2d(width, classes + 1, kernel_size=1)
        initialization.initialize_decoder(self.decoder)
        initialization.initialize_head(self.head)

    @property
    def classes(self) -> int:
        return self.head.out_channels - 1

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C+1, H, W), channel 0 the background, of images (N, 3, H, W) in [0, 1].

        Any size: sides that are no multiple of the output stride are filled up with the mean.
        """
        height, width = images.shape[2:]
        stride = self.backbone.final.stride
        padded = fill_up(images, stride, self.backbone.mean)
        final, (fine,) = self.backbone(padded, (self._fine,))
        decoded = self.decoder([final, final, fine, final])
        logits = F.interpolate(
            self.head(decoded), size=padded.shape[2:], mode="bilinear", align_corners=False
        )
        return logits[..., :height, :width]

    def new_parameters(self) -> Iterator[Parameter]:
        """The parameters that are not the backbone's."""
        yield from self.decoder.parameters()
        yield from self.head.parameters()


SegmentationNetwork = Segmenter | PixelSegmenter
"""What gives logits (N, C+1, H, W) of images of any size."""
