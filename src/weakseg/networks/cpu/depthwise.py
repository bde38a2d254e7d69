"""Depthwise convolutions whose gradients are fast on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one filter a channel and stride 1, and the same results.

    On a CPU the library's gradients of such a layer take some 50 times as long as the layer. That
    of the input is itself a convolution, with the filters turned around; that of the filters is
    three times as fast in float32 as in bfloat16.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.to(torch.get_autocast_dtype(device))
        convolved: Tensor = _Convolution.apply(input, weight, self.padding, self.dilation)
        return convolved if bias is None else convolved + bias.view(-1, 1, 1).to(convolved.dtype)


def use_fast_gradients(module: nn.Module) -> None:
    """Make a `DepthwiseConv2d` of every layer inside that can be one; weights stay as they are."""
    for layer in module.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.groups == layer.in_channels == layer.out_channels > 1
            and layer.stride == (1, 1)
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        ):
            layer.__class__ = DepthwiseConv2d


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, padding: list[int], dilation: list[int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding, ctx.dilation = padding, dilation
        filters = weight.to(images.dtype)
        return F.conv2d(images, filters, None, 1, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            reach = [
                dilation * (side - 1) - padding
                for side, padding, dilation in zip(
                    weight.shape[2:], ctx.padding, ctx.dilation, strict=True
                )
            ]
            turned = weight.flip(2, 3).to(gradient.dtype)
            of_images = F.conv2d(gradient, turned, None, 1, reach, ctx.dilation, len(weight))
        if ctx.needs_input_grad[1]:
            of_weight = conv2d_weight(
                images.float(),
                weight.shape,
                gradient.float(),
                1,
                ctx.padding,
                ctx.dilation,
                len(weight),
            )
        return of_images, of_weight, None, None
