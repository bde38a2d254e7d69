"""Backbones: any timm model that gives feature maps, behind one contract.

A backbone gives its *stages*, feature maps from fine to coarse, and a *final* map, the deepest
one. Stage `i`
has `stages[i].stride` image pixels a cell and `stages[i].channels` channels; a map's side is
the image's side over the stride, rounded up: images are filled up for networks that round down or
want sides that their stride divides. Mean and standard deviation come with the weights: callers
pass images in [0, 1], and the backbone normalises.

A Swin is such a pyramid. A ViT (DINOv2, DINOv3, the image towers of CLIP and EVA) has as many
stages as blocks, all of its patch's stride. Its final map are the patches' tokens behind the last
norm; the positions that it learned are brought to an image's size by interpolation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.errors import WeaksegError, nearest, quoted, shortened
from weakseg.names import ALIASES
from weakseg.networks.weights import load_weights

_SWINS = ["swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"]
_VITS = ["deit", "eva", "vision_transformer", "vision_transformer_hybrid"]
"""timm's modules of networks that take images of any size, but only if they are told to."""

_PROBES = ((65, 97), (1, 97))
"""Sizes of images: odd at every level of a network, and as thin as can be."""


class Stage(NamedTuple):
    """One level of a backbone's feature maps."""

    stride: int
    channels: int


class Features(NamedTuple):
    """What a backbone gives for a batch: the deepest map, and the stages that were asked for."""

    final: Tensor
    stages: list[Tensor]


class Backbone(nn.Module):
    """A timm model without its head.

    Args:
        name: a timm name, or one of `efficientnet_lite0/1/2`.
        weights: see `weakseg.networks.weights`.
        output_stride: image pixels a cell of the final map. 32 takes a network as it is, which a
            ViT's patch decides; 16 or 8 asks for that stride, which convolutional ones can have.
        dilated: whether a stride that is taken out is made up for by dilation. IRN's and SIPE's
            ResNet-50 has `output_stride=16, dilated=False`: strides (2, 2, 2, 1). The VGG16 of
            Dobko et al. has `output_stride=8`: no last pool, the one before it with stride 1, and
            the convolutions behind that dilated by 2 (Jiang et al. 2019).
        head_convolution: whether the final map is that of the convolution which EfficientNet and
            its kin have behind their last stage, and ViT and Swin of their last norm; or the last
            stage itself.
        frozen_stages: how many stages, from the finest, are not trained. Everything before the
            end of the last of them is frozen, the stem included. `-1` freezes the whole.

    BatchNorm always uses its running statistics and never updates them, in training too:
    batches are small and the statistics are ImageNet's.

    Raises:
        WeaksegError: an unknown name, a model without feature maps, a stride that it can't have,
            or weights that can't be had.
    """

    stages: tuple[Stage, ...]
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str = "imagenet",
        output_stride: int = 32,
        dilated: bool = True,
        head_convolution: bool = True,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        name = _known(name)
        self.model: Any = _create(name, output_stride)  # timm's interface is untyped
        if not dilated:
            _remove_dilation(self.model)
        load_weights(self.model, name, weights)
        self.model.to(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU
        config = self.model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self.stages, self.final = _measure(self.model, name)
        self._head_convolution = head_convolution
        if not head_convolution:
            self.final = self.stages[-1]
        if output_stride not in (32, self.final.stride):
            raise WeaksegError(
                f"{name} has an output stride of {self.final.stride}, not {output_stride}. Leave "
                "output_stride out, which takes a backbone as it is, or choose another one."
            )
        self._multiple = 1
        if self._misfit():
            self._multiple = max(stage.stride for stage in (*self.stages, self.final))
            if reason := self._misfit():
                raise WeaksegError(
                    f"{name} can't be used: {reason}. Choose another backbone, such as resnet50."
                )
        self._freeze(frozen_stages)

    def forward(self, images: Tensor, stages: Sequence[int] = ()) -> Features:
        """Feature maps of a batch.

        Args:
            images: float (N, 3, H, W) in [0, 1], any size.
            stages: indices into `self.stages` of the stages wanted, which are given from fine
                to coarse.
        """
        height, width = images.shape[2:]
        filled = fill_up(images, self._multiple, self.mean) if self._multiple > 1 else images
        normalised = (filled - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        last = len(self.stages) - 1
        indices = sorted({*stages, last})
        if self._head_convolution:
            found, maps = self.model.forward_intermediates(normalised, indices=indices)
            final = _final_map(self.model, found, maps[-1])
        else:
            maps = self.model.forward_intermediates(
                normalised, indices=indices, intermediates_only=True
            )
            final = maps[-1]
        if self._multiple > 1:  # what lies beyond the image, of the fill alone, is cut off
            final = _cut(final, height, width, self.final.stride)
            maps = [
                _cut(level, height, width, self.stages[i].stride)
                for i, level in zip(indices, maps, strict=True)
            ]
        return Features(final, maps if last in stages else maps[:-1])

    @torch.no_grad()  # not inference mode: some models keep tensors of their first pass
    def _misfit(self) -> str | None:
        """Why the maps of an odd or of a thin image are not as announced, if they aren't."""
        expected = (*self.stages, self.final)
        for height, width in _PROBES:
            try:
                image = self.mean.expand(1, 3, height, width)
                final, maps = self(image, range(len(self.stages)))
            except Exception as error:  # each of a thousand models has its own ways to fail
                return f"an image of {height}x{width} ends in {_in_short(error)}"
            for features, stage in zip((*maps, final), expected, strict=True):
                sides = -(-height // stage.stride), -(-width // stage.stride)
                if features.shape != (1, stage.channels, *sides):
                    return f"an image of {height}x{width} gives a map of {tuple(features.shape)}"
        return None

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _freeze(self, count: int) -> None:
        if not -1 <= count <= len(self.stages):
            raise WeaksegError(
                f"frozen_stages is {count}; expected -1 (all) to {len(self.stages)} for this "
                "backbone."
            )
        modules = [*self.model.modules()]
        frozen = modules if count == -1 else modules[: self._end(count, modules)]
        if not self._head_convolution:  # nothing reads it, which several devices would wait for
            frozen = frozen + modules[self._end(len(self.stages), modules) :]
        if pool := getattr(self.model, "attn_pool", None):  # as little is that of a ViT
            frozen = [*frozen, *pool.modules()]
        for module in frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def _end(self, count: int, modules: list[nn.Module]) -> int:
        """Place in `modules` behind all that belongs to the first `count` stages."""
        if count == 0:
            return 0
        return modules.index([*self.stage_module(count - 1).modules()][-1]) + 1

    def stage_module(self, index: int) -> nn.Module:
        """The module whose output is the stage `index`."""
        module: nn.Module = self.model.get_submodule(self.model.feature_info[index]["module"])
        return module


def fill_up(images: Tensor, multiple: int, mean: Tensor) -> Tensor:
    """Images (N, 3, H, W), filled with `mean` at the right and below to multiples of a number."""
    height, width = images.shape[2:]
    return F.pad(images - mean, (0, -width % multiple, 0, -height % multiple)) + mean


def _cut(features: Tensor, height: int, width: int, stride: int) -> Tensor:
    return features[..., : -(-height // stride), : -(-width // stride)]


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(str(error), 150)}".rstrip(": .")


def count_weights(name: str, output_stride: int = 32) -> int:
    """How many numbers a backbone has to learn, told without making room for them.

    0 for the few models that can't be made so.

    Raises:
        WeaksegError: timm has no such model.
    """
    name = _known(name)
    try:
        with torch.device("meta"):
            return sum(weight.numel() for weight in _create(name, output_stride).parameters())
    except WeaksegError:
        return 0


def _known(name: str) -> str:
    """A model's name in timm.

    Raises:
        WeaksegError: it has none of that name.
    """
    name = ALIASES.get(name, name)
    if not timm.is_model(name):
        hint = nearest(name, [*ALIASES, *timm.list_models()])
        raise WeaksegError(
            f"Unknown backbone {quoted(name)}."
            + (f" Did you mean {hint!r}?" if hint else "")
            + f" Known: {', '.join(sorted(ALIASES))}, and timm's models (resnet50, ...)."
        )
    return name


def _create(name: str, output_stride: int) -> Any:
    is_vgg = is_model_in_modules(name, ["vgg"])
    try:
        model = timm.create_model(
            name, pretrained=False, num_classes=0, **_arguments(name, output_stride)
        )
    except Exception as error:
        raise WeaksegError(
            f"{name} can't be made with output_stride {output_stride} ({_in_short(error)}). Choose "
            "another backbone, or the stride 32."
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise WeaksegError(
            f"{name} gives no intermediate feature maps in timm {timm.__version__}. Choose another "
            "backbone, or a newer timm."
        )
    if is_vgg:
        _reshape_vgg(model, output_stride)
    return model.eval()


def _arguments(name: str, output_stride: int) -> dict[str, Any]:
    if is_model_in_modules(name, ["vgg"]):
        return {"mlp_ratio": 1 / 4096}  # or 120 million parameters are drawn and thrown away
    if is_model_in_modules(name, _SWINS):
        # On a photo the last stage has more than the one window that it learned: they shift there
        # as well, as where Swin detects and segments (Liu et al. 2021).
        return {"dynamic_img_size": True, "always_partition": True}
    if is_model_in_modules(name, _VITS):
        return {"dynamic_img_size": True}
    return {} if output_stride == 32 else {"output_stride": output_stride}


def _reshape_vgg(model: Any, output_stride: int) -> None:
    """Give timm's VGG, which knows a stride of 32 alone, another one; take its head away.

    Its pools round up, so that no row or column at the border is lost and a map lies on the whole
    image; the one with stride 1 looks at 3x3 cells, since 2x2 would move the map by half a cell.
    """
    levels = range(6 if output_stride == 32 else 5)  # the last has nothing but the last pool
    model.prune_intermediate_layers(list(levels), prune_head=True)
    pools = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)]
    for i in pools:
        model.features[i].ceil_mode = True
    if output_stride == 8:
        model.features[pools[3]] = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        for layer in model.features[pools[3] :]:
            if isinstance(layer, nn.Conv2d):
                layer.dilation = layer.padding = (2, 2)


def _remove_dilation(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            if not isinstance(module.padding, str):
                module.padding = tuple(
                    p // d for p, d in zip(module.padding, module.dilation, strict=True)
                )
            module.dilation = (1, 1)


def _measure(model: Any, name: str) -> tuple[tuple[Stage, ...], Stage]:
    """Stages and the final map, by those of an image whose sides any stride divides."""
    side = 2 * max(level["reduction"] for level in model.feature_info)
    try:
        with torch.no_grad():
            found, stages = model.forward_intermediates(torch.zeros(1, 3, side, side))
            final = _final_map(model, found, stages[-1])
    except Exception as error:
        config = model.pretrained_cfg
        reason = f"an image of {side}x{side} ends in {_in_short(error)}"
        if config.get("fixed_input_size"):
            reason = "it takes images of {1}x{2} pixels alone".format(*config["input_size"])
        raise WeaksegError(
            f"{name} can't be used: {reason}. Choose another backbone, such as resnet50."
        ) from error
    if not all(isinstance(level, Tensor) and level.ndim == 4 for level in (*stages, final)):
        raise WeaksegError(
            f"{name} can't be used: it gives no feature maps. Choose another backbone, such as "
            "resnet50."
        )
    measured = [Stage(side // level.shape[-1], level.shape[1]) for level in (*stages, final)]
    return tuple(measured[:-1]), measured[-1]


def _final_map(model: Any, final: Tensor, last: Tensor) -> Tensor:
    """The final map (N, C, h, w) of what timm gives as such.

    Args:
        final: a map of that form; or (N, h, w, C); or tokens (N, n + h * w, C), first those that
            are of no patch.
        last: the last stage, of the same h and w.
    """
    size = last.shape[2:]
    if final.ndim == 3:
        patches = final[:, -size.numel() :]
        if hasattr(model, "fc_norm"):  # in the place of a ViT's last norm, if it pools before it
            patches = model.fc_norm(patches)
        found: Tensor = patches.transpose(1, 2).unflatten(2, size)
        return found
    if final.shape[1:3] == size != final.shape[2:]:
        return final.permute(0, 3, 1, 2)
    return final
