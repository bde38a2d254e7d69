import copy
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone
from weakseg.networks.cpu import fused as fused_module
from weakseg.networks.cpu import onednn
from weakseg.networks.cpu.fused import fuse

SIZES = [(64, 64), (65, 96), (33, 40), (7, 90)]
NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def trained(name: str, **arguments: Any) -> Backbone:
    """A backbone whose BatchNorm does something."""
    torch.manual_seed(0)
    backbone = Backbone(name, weights="none", **arguments).eval()
    for module in backbone.modules():
        if isinstance(module, NORMS):
            nn.init.normal_(module.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    return backbone


@torch.no_grad()
def maps(backbone: Backbone, images: torch.Tensor) -> list[torch.Tensor]:
    final, stages = backbone(images, range(len(backbone.stages)))
    return [*stages, final]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor], share: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one.float() - other).abs().max() <= share * other.abs().max()


NAMES = [
    "test_resnet", "test_efficientnet", "tf_efficientnet_lite0", "mobilenetv3_small_050",
    "vgg11", "test_convnext",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_maps_stay_what_they_were(name: str) -> None:
    backbone = trained(name)
    before = copy.deepcopy(backbone.state_dict())
    fused = fuse(backbone)
    assert fused is not backbone
    for size in SIZES[: 2 if name == "test_convnext" else None]:
        images = torch.rand(2, 3, *size)
        assert_close(maps(fused, images), maps(backbone, images), 1e-3)
    assert not any(isinstance(module, NORMS) for module in fused.modules())
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet", "vgg11"])
def test_convolutions_apply_the_activations_behind_them(name: str) -> None:
    """All but those behind a sum: one in each of ResNet's blocks."""
    modules = [*fuse(trained(name)).model.named_modules()]
    alone = [
        name
        for name, module in modules
        if isinstance(module, (nn.ReLU, nn.ReLU6)) and not name.endswith(".activation")
    ]
    sums = [module for _, module in modules if isinstance(module, (BasicBlock, Bottleneck))]
    assert len(alone) == len(sums)


def test_dilation_and_strides_that_were_taken_out() -> None:
    for arguments in ({"output_stride": 16}, {"output_stride": 8}):
        backbone = trained("tf_efficientnet_lite0", head_convolution=False, **arguments)
        images = torch.rand(1, 3, 70, 64)
        assert_close(maps(fuse(backbone), images), maps(backbone, images), 1e-3)


def test_without_the_private_operator_maps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = trained("tf_efficientnet_lite0")
    monkeypatch.setattr(onednn, "_CONVOLVE", "no_such_operator")
    images = torch.rand(1, 3, 64, 50)
    assert_close(maps(fuse(backbone), images), maps(backbone, images), 1e-3)


@pytest.mark.parametrize("there", [True, False])
def test_in_bfloat16_maps_are_as_near_as_autocast_brings_them(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    backbone, images = trained("tf_efficientnet_lite0"), torch.rand(2, 3, 64, 64)
    fused = fuse(backbone, torch.bfloat16)
    if not there:
        monkeypatch.setattr(onednn, "_CONVOLVE", "no_such_operator")
    with torch.autocast("cpu", torch.bfloat16):
        found = maps(fused, images)
    assert all(one.dtype == torch.bfloat16 for one in found)
    assert_close(found, maps(backbone, images), 0.05)


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 11), (13, 9), (2, 1)])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2),
                                                            (4, 3, 1), (3, 2, 2)])  # fmt: skip
def test_padding_at_the_end_alone(
    size: tuple[int, int], groups: int, kernel: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    convolution = Conv2dSame(4, 8, kernel, stride, dilation=dilation, groups=groups)
    images = torch.rand(2, 4, *size)
    with torch.no_grad():
        found = fused_module._Convolution(convolution)(images)
        torch.testing.assert_close(found, convolution(images), atol=1e-5, rtol=1e-5)


class _Model(nn.Module):
    """The norm is not all that reads the convolution; or it is called a second time."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.twice = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), twice
        nn.init.ones_(self.norm.get_buffer("running_mean"))

    def forward_intermediates(
        self, images: torch.Tensor, indices: object
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        convolved = self.conv(images)
        normed = self.norm(convolved)
        found = self.norm(normed) if self.twice else normed + convolved
        return found, [found]


@pytest.mark.parametrize("twice", [True, False])
def test_what_can_not_be_folded_is_left_as_it_is(twice: bool) -> None:
    backbone = trained("test_resnet")
    backbone.model, backbone.stages = _Model(twice).eval(), backbone.stages[:1]
    fused = fuse(backbone)
    assert (fused is backbone) is not twice
    images = torch.rand(1, 3, 8, 8)
    assert_close(maps(fused, images), maps(backbone, images), 1e-5)


def test_a_network_of_tokens_is_left_as_it_is() -> None:
    backbone = trained("test_vit")
    assert fuse(backbone, torch.bfloat16) is backbone
    images = torch.rand(2, 3, 65, 97)
    with torch.autocast("cpu", torch.bfloat16):
        found = maps(backbone, images)
    assert_close(found, maps(backbone, images), 0.05)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_weights_that_are_no_numbers_are_refused(name: str) -> None:
    backbone = trained(name)
    next(backbone.model.parameters()).data[0, 0] = torch.nan
    with pytest.raises(WeaksegError, match="are NaN or infinite"):
        fuse(backbone)


def test_a_model_that_asks_its_convolutions_for_more_is_left_as_it_is() -> None:
    backbone = trained("test_resnet")
    block = backbone.model.layer1[0]
    block.register_forward_pre_hook(lambda module, _: module.conv1.kernel_size and None)
    assert fuse(backbone) is backbone
