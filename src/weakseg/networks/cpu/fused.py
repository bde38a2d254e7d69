"""Backbones made ready for inference: the same maps in fewer passes over memory.

A network of small convolutions spends more of a CPU's time on moving its maps than on arithmetic.
BatchNorm and an activation move each once more, unless the convolution before them does their
work; and autocast converts every weight again at each call.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, get_same_padding, pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone
from weakseg.networks.cpu import onednn

_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, BatchNormAct2d)
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0, 6]),
    nn.SiLU: ("swish", []),
}
"""oneDNN's name and arguments of each."""


@torch.no_grad()
def fuse(backbone: Backbone, dtype: torch.dtype | None = None) -> Backbone:
    """A copy of a backbone that gives the same maps faster, for inference alone.

    Each BatchNorm is folded into the convolution before it, which also applies the activation
    behind it. What belongs together is found by watching a forward pass. Where something else
    reads a tensor in between, the copy's maps differ, and `backbone` itself is returned; so it is
    where the model asks its convolutions for more than their output, or has but that of its
    patches (ViT, Swin).

    Args:
        backbone: in eval mode.
        dtype: what the convolutions compute in; callers use it under autocast to the same.
            None: float32.

    Raises:
        WeaksegError: its maps of an image are not finite.
    """
    device = backbone.mean.device
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if not all(maps.isfinite().all() for maps in _maps(backbone, images.to(device))):
        raise WeaksegError(
            "A backbone's maps of an ordinary image are NaN or infinite: its weights are those of "
            "no trained network."
        )
    if sum(_is_plain(module) or isinstance(module, _NORMS) for module in backbone.modules()) < 2:
        return backbone  # a network of tokens, which may be too large to have three times
    fused, original = (copy.deepcopy(backbone).cpu().double() for _ in range(2))
    images = images.double()
    true = _maps(original, images)
    for first, second in _followed(fused, images, _NORMS):
        norm = fused.get_submodule(second)
        _fold(fused.get_submodule(first), norm)
        _replace(fused, second, getattr(norm, "act", nn.Identity()))
    for first, second in _followed(fused, images, tuple(_ACTIVATIONS)):
        convolution, activation = (fused.get_submodule(name) for name in (first, second))
        _replace(fused, first, _Convolution(convolution, activation))
        _replace(fused, second, nn.Identity())
    for name, module in [*fused.named_modules()]:
        if _is_plain(module):
            _replace(fused, name, _Convolution(module))
    if not _gives(fused, images, true):
        return backbone
    fused.float().to(device)
    for module in fused.modules():
        if isinstance(module, _Convolution):
            module.to(dtype=dtype)
    return fused


class _Convolution(nn.Module):
    """A convolution and the activation behind it, in one pass where oneDNN does the work."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, convolution: Any, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", convolution.weight)
        self.register_buffer("bias", convolution.bias)
        self.activation = activation or nn.Identity()
        self._pads_itself = isinstance(convolution, Conv2dSame)
        self._padding, self._stride = convolution.padding, convolution.stride
        self._dilation, self._groups = convolution.dilation, convolution.groups
        self._movable = self._groups > 1 and max(self._dilation) == 1

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.to(self.weight.dtype)
        weight, padding = self.weight, self._padding
        if self._pads_itself and self._movable and maps.device.type == "cpu":
            weight, padding = self._shifted(maps.shape[2:])
        elif self._pads_itself:
            maps = pad_same(maps, weight.shape[2:], self._stride, self._dilation)
        if not onednn.fuses(maps):
            found = F.conv2d(
                maps, weight, self.bias, self._stride, padding, self._dilation, self._groups
            )
            activated: Tensor = self.activation(found)
            return activated
        geometry = padding, self._stride, self._dilation, self._groups
        name, arguments = _ACTIVATIONS.get(type(self.activation), ("none", []))
        return onednn.convolve(maps, weight, self.bias, *geometry, name, arguments)

    def _shifted(self, size: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        """A kernel and a padding of both ends alike that do what TensorFlow's padding does.

        That puts an odd cell of padding at the end. A zero in front moves the kernel by as much,
        which is cheaper than to copy the maps into a larger frame.
        """
        axes = zip(size, self.weight.shape[2:], self._stride, self._dilation, strict=True)
        rows, columns = (get_same_padding(*axis) for axis in axes)
        weight = F.pad(self.weight, (columns % 2, 0, rows % 2, 0))
        return weight, ((rows + 1) // 2, (columns + 1) // 2)


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a convolution that does no more than its name says."""
    return (
        type(module) in (nn.Conv2d, Conv2dSame)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _followed(
    backbone: Backbone, images: Tensor, kinds: tuple[type[nn.Module], ...]
) -> list[tuple[str, str]]:
    """Names of plain convolutions, each with that of the module of `kinds` that takes its output.

    Modules that are called more than once are left alone.
    """
    names = {module: name for name, module in backbone.named_modules()}
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}
    calls: Counter[nn.Module] = Counter()
    pairs = []

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if type(module) in kinds and id(inputs[0]) in made:
            maker, output, version = made[id(inputs[0])]
            if _is_plain(maker) and output._version == version:  # nothing was added in place
                pairs.append((maker, module))

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = module, output, output._version

    hooks = []
    for module in names:
        if type(module) in kinds or not (isinstance(module, nn.Identity) or [*module.children()]):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    backbone(images, range(len(backbone.stages)))
    for hook in hooks:
        hook.remove()
    return [
        (names[first], names[second])
        for first, second in pairs
        if calls[first] == calls[second] == 1
    ]


def _fold(convolution: Any, norm: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


def _maps(backbone: Backbone, images: Tensor) -> tuple[Tensor, ...]:
    final, stages = backbone(images, range(len(backbone.stages)))
    return *stages, final


def _gives(backbone: Backbone, images: Tensor, true: Sequence[Tensor]) -> bool:
    try:
        found = _maps(backbone, images)
    except AttributeError:  # some models ask their convolutions for more than `_Convolution` has
        return False
    return all(
        torch.allclose(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))
        for one, other in zip(found, true, strict=True)
    )
