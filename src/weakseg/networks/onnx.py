"""A segmentation network's graph in ONNX, for images of any number and size."""

import copy
import io
import warnings

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.errors import WeaksegError, shortened
from weakseg.networks.segmenter import Segmenter
from weakseg.segment.onnx import INPUT, OUTPUT

_OPSET = 17
_TRACED = (2, 3, 65, 97)


def onnx_graph(network: Segmenter) -> bytes:
    """The network by the exporter that traces, as the content of an ONNX file.

    The one behind torch.export does not come to an end with sides that are free and then filled up
    (docs/architecture.md).

    Raises:
        WeaksegError: the backbone has what ONNX has no operator for.
    """
    exported = copy.deepcopy(network)
    _fix_padding(exported.backbone)
    free = {0: "photos", 2: "height", 3: "width"}
    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is constant in a trace, and of its age
            torch.onnx.export(
                exported,
                (torch.rand(_TRACED),),
                content,  # type: ignore[arg-type]
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: free, OUTPUT: free},
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as error:  # each of a thousand backbones has its own ways to fail
        raise WeaksegError(
            f"The backbone can't be exported: {type(error).__name__}: {shortened(str(error), 200)}"
        ) from error
    return content.getvalue()


class _FixedPadding(nn.Module):
    """A convolution with TensorFlow's padding, of sides that its stride divides.

    There it is the same for all of them, which a runtime makes part of the convolution.
    """

    def __init__(self, convolution: Conv2dSame) -> None:
        super().__init__()
        self.convolution = convolution
        self._padding: list[int] = []
        axes = zip(convolution.kernel_size, convolution.dilation, convolution.stride, strict=True)
        for kernel, dilation, stride in axes:
            both = max(0, (kernel - 1) * dilation + 1 - stride)
            self._padding = [both // 2, both - both // 2, *self._padding]

    def forward(self, maps: Tensor) -> Tensor:
        layer = self.convolution
        padded = F.pad(maps, self._padding)
        found: Tensor = F.conv2d(
            padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups
        )
        return found


def _fix_padding(module: nn.Module) -> None:
    """Images are filled up to whole cells of the coarsest map: a stride divides all sides."""
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, _FixedPadding(child))
        else:
            _fix_padding(child)
