from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone, Stage

SIZES = [(64, 64), (65, 97), (33, 40), (1, 97), (250, 10)]


@cache
def untrained(name: str) -> Backbone:
    """A backbone for those who don't change it."""
    return Backbone(name, weights="none").eval()


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_efficientnet",
        "test_convnext",  # rounds sides down
        "hrnet_w18_small",  # adds maps that must have sides of whole cells
        "mobilenetv3_small_050",
        "test_vit",
        "eva02_tiny_patch14_224",
        "swin_tiny_patch4_window7_224",
        "test_mambaout",  # gives its final map with the channels last
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_maps_have_the_announced_channels_and_strides(name: str, size: tuple[int, int]) -> None:
    backbone = untrained(name)
    with torch.no_grad():
        final, stages = backbone(torch.rand(2, 3, *size), range(len(backbone.stages)))
    for features, stage in zip((*stages, final), (*backbone.stages, backbone.final), strict=True):
        assert features.shape[:2] == (2, stage.channels)
        for side, cells in zip(size, features.shape[2:], strict=True):
            assert cells == -(-side // stage.stride)


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("test_resnet", (65, 97)),
        ("efficientnet_lite1", (65, 97)),
        ("vgg11", (65, 97)),
        ("test_convnext", (96, 128)),
        ("test_vit", (80, 112)),
        ("eva02_tiny_patch14_224", (70, 98)),
        ("swin_tiny_patch4_window7_224", (96, 128)),
    ],
)
def test_only_where_a_network_needs_it_images_are_filled_up(
    name: str, filled: tuple[int, int]
) -> None:
    backbone = untrained(name)
    seen = []
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    with first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        backbone(torch.rand(1, 3, 65, 97))
    (image,) = seen
    assert image.shape[2:] == filled
    assert not image[..., 65:, :].any() and not image[..., 97:].any()


def test_stages_come_from_fine_to_coarse_and_only_those_asked_for() -> None:
    backbone = Backbone("test_efficientnet", weights="none").eval()
    strides = [stage.stride for stage in backbone.stages]
    assert strides == sorted(strides)
    _, stages = backbone(torch.rand(1, 3, 64, 64), [2, 0])
    assert [s.shape[1] for s in stages] == [backbone.stages[i].channels for i in (0, 2)]


def test_resnet50_in_irn_form_has_strides_2221_without_dilation() -> None:
    backbone = Backbone("resnet50", weights="none", output_stride=16, dilated=False)
    assert backbone.stages == (
        Stage(2, 64), Stage(4, 256), Stage(8, 512), Stage(16, 1024), Stage(16, 2048)
    )  # fmt: skip
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.dilation == (1, 1) for m in convolutions)
    assert all(m.padding == (m.kernel_size[0] // 2,) * 2 for m in convolutions)


def test_dilation_makes_up_for_a_stride_that_is_taken_out() -> None:
    dilated = Backbone("resnet50", weights="none", output_stride=16)
    assert any(m.dilation == (2, 2) for m in dilated.modules() if isinstance(m, nn.Conv2d))


def test_images_are_normalised_with_the_weights_mean_and_std() -> None:
    backbone = Backbone("test_resnet", weights="none").eval()
    seen = []
    backbone.model.conv1[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 32, 32)
    backbone(images)
    config = backbone.model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(seen[0], (images - mean) / std)


def test_frozen_stages_get_no_gradient_and_later_ones_do() -> None:
    backbone = Backbone("test_resnet", weights="none", frozen_stages=3)
    backbone(torch.rand(1, 3, 64, 64)).final.sum().backward()
    for name, parameter in backbone.model.named_parameters():
        early = name.startswith(("conv1", "bn1", "layer1", "layer2"))
        assert parameter.requires_grad is not early, name
        assert (parameter.grad is None) is early, name


def test_minus_one_freezes_the_whole() -> None:
    backbone = Backbone("test_resnet", weights="none", frozen_stages=-1)
    assert not any(p.requires_grad for p in backbone.parameters())


def test_batchnorm_statistics_never_change_in_training() -> None:
    backbone = Backbone("test_resnet", weights="none").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k}
    backbone(torch.rand(4, 3, 64, 64) * 9)
    assert before
    for key, value in before.items():
        torch.testing.assert_close(backbone.state_dict()[key], value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "Did you mean 'resnet50'"),
        ({"name": "efficient_net_lite1"}, "efficientnet_lite1"),
        ({"name": "levit_128s"}, "takes images of 224x224 pixels alone. Choose another backbone"),
        ({"name": "inception_v3"}, "can't be used: an image of 64x64 ends in .* Choose another"),
        ({"name": "efficientvim_m1"}, "can't be used: .* Choose another"),
        ({"name": "test_vit", "output_stride": 8}, "stride of 16, not 8. Leave output_stride out"),
        ({"name": "x" * 100_000}, "Unknown backbone 'x{80}...'"),
        ({"name": "test_resnet", "frozen_stages": 9}, "expected -1"),
        ({"name": "test_mambaout", "output_stride": 8}, "output_stride 8"),
    ],
)
def test_what_can_not_be_had_is_said_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message) as caught:
        Backbone(weights="none", **arguments)
    assert "\n" not in str(caught.value)


def test_stages_of_a_vit_are_its_blocks_and_its_final_map_is_the_normed_last() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_vit", weights="none", output_stride=16).eval()
    assert backbone.stages == (Stage(16, 64),) * len(backbone.model.blocks)
    nn.init.normal_(backbone.model.norm.weight)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        final, (last,) = backbone(images, [len(backbone.stages) - 1])
        normed = backbone.model.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        whole = backbone.model.forward_features((images - backbone.mean) / backbone.std)
    torch.testing.assert_close(final, normed)
    patches = whole[:, backbone.model.num_prefix_tokens :]
    torch.testing.assert_close(final.flatten(2).transpose(1, 2), patches)
    raw = Backbone("test_vit", weights="none", head_convolution=False).eval()
    raw.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(raw(images).final, last)


def test_a_norm_that_a_vit_has_behind_its_pooling_is_that_of_the_final_map() -> None:
    backbone = untrained("eva02_tiny_patch14_224")
    assert isinstance(backbone.model.norm, nn.Identity)
    with torch.no_grad():
        final, (last,) = backbone(torch.rand(1, 3, 42, 56), [11])
    torch.testing.assert_close(final, backbone.model.fc_norm(last.movedim(1, 3)).movedim(3, 1))


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_r_s16_p8_224"])
@pytest.mark.parametrize("size", [(64, 160), (224, 224), (65, 33)])
def test_positions_of_a_vit_stay_where_they_are_in_the_image(
    name: str, size: tuple[int, int]
) -> None:
    """Positions that are ramps from one border to the other are so in an image of any size."""
    backbone = Backbone(name, weights="none", head_convolution=False).eval()
    for block in backbone.model.blocks:
        for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
            nn.init.zeros_(parameter)
    for parameter in backbone.model.patch_embed.parameters():
        nn.init.zeros_(parameter)
    positions = backbone.model.pos_embed.data
    grid = backbone.model.patch_embed.grid_size
    rows, columns = (torch.linspace(-1, 1, count + 1)[1:] - 1 / count for count in grid)
    patches = positions[:, -grid[0] * grid[1] :]
    patches[..., 0] = rows.repeat_interleave(grid[1])
    patches[..., 1] = columns.repeat(grid[0])
    with torch.no_grad():
        final = backbone(torch.rand(1, 3, *size)).final[0]
    stride = backbone.final.stride
    for axis, (side, cells) in enumerate(zip(size, final.shape[1:], strict=True)):
        assert cells == -(-side // stride)
        found = final[axis].mean(dim=1 - axis)
        filled = -(-side // stride) * stride
        expected = (torch.arange(cells) + 0.5) * 2 * stride / filled - 1
        inside = expected.abs() <= 1 - 2 / min(grid)  # the interpolation is flat at the borders
        torch.testing.assert_close(found[inside], expected[inside], atol=0.05, rtol=0)


def test_a_swins_last_stage_shifts_its_windows() -> None:
    """What lies in the next window, which its own images don't have, reaches a cell."""
    backbone = untrained("swin_tiny_patch4_window7_224")
    maps = torch.rand(1, 7, 14, 768)
    other = maps.clone()
    other[:, :, 7:] = 0
    blocks = backbone.model.layers[3].blocks
    with torch.no_grad():
        found, expected = blocks(other)[:, :, :7], blocks(maps)[:, :, :7]
    assert (found[:, :, 4:] != expected[:, :, 4:]).any()


def test_frozen_blocks_of_a_vit_come_with_all_that_is_before_them() -> None:
    backbone = Backbone("test_vit3", weights="none", frozen_stages=2)
    backbone(torch.rand(1, 3, 64, 64)).final.sum().backward()
    trained = ("norm.", *(f"blocks.{i}." for i in range(2, len(backbone.stages))))
    for name, parameter in backbone.model.named_parameters():
        late = name.startswith(trained)  # and not of attn_pool, which nothing reads
        assert parameter.requires_grad is late, name
        assert (parameter.grad is not None) is late, name


@pytest.fixture(scope="module")
def vgg() -> Backbone:
    torch.manual_seed(0)
    return Backbone("vgg11", weights="none", output_stride=8).eval()


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg16_in_paper_bs_form(name: str) -> None:
    backbone = Backbone(name, weights="none", output_stride=8)
    assert backbone.stages == (
        Stage(1, 64), Stage(2, 128), Stage(4, 256), Stage(8, 512), Stage(8, 512)
    )  # fmt: skip
    assert backbone.final == backbone.stages[-1]
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [c.dilation[0] for c in convolutions] == [1] * 10 + [2] * 3
    assert all(c.padding == c.dilation for c in convolutions)
    pools = [m for m in backbone.modules() if isinstance(m, nn.MaxPool2d)]
    assert [pool.stride for pool in pools] == [2, 2, 2, 1]


@pytest.mark.parametrize(("stride", "stages"), [(16, 5), (32, 6)])
def test_vgg_at_other_strides(stride: int, stages: int) -> None:
    backbone = Backbone("vgg11", weights="none", output_stride=stride)
    assert (backbone.final.stride, len(backbone.stages)) == (stride, stages)
    assert all(m.dilation == (1, 1) for m in backbone.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (7, 90)])
def test_vggs_maps_are_rounded_up(vgg: Backbone, size: tuple[int, int]) -> None:
    with torch.no_grad():
        final, stages = vgg(torch.rand(1, 3, *size), range(5))
    for features, stage in zip((*stages, final), (*vgg.stages, vgg.final), strict=True):
        assert features.shape[2:] == tuple(-(-side // stage.stride) for side in size)


def test_vgg_with_symmetric_kernels_gives_the_mirror_image_of_a_mirror_image() -> None:
    """It would not if a pool moved the map."""
    backbone = Backbone("vgg11", weights="none", output_stride=8).eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data += module.weight.data.flip(2, 3)
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        straight, turned = backbone(images).final, backbone(images.flip(2, 3)).final
    torch.testing.assert_close(turned.flip(2, 3), straight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spot", [(0, 0), (64, 96), (30, 50)])
def test_a_cell_of_vgg_lies_where_its_pixels_are(spot: tuple[int, int]) -> None:
    backbone = Backbone("vgg11", weights="none", output_stride=8).eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            module.weight.data[:, :, 1, 1] = 1 / module.in_channels
    images = backbone.mean.expand(1, 3, 65, 97).clone()
    images[0, :, spot[0], spot[1]] += 1
    with torch.no_grad():
        lit = backbone(images).final[0, 0] > 0
    expected = torch.zeros(9, 13, dtype=torch.bool)
    row, column = spot[0] // 8, spot[1] // 8
    expected[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    assert torch.equal(lit, expected)


def test_frozen_stages_of_vgg() -> None:
    backbone = Backbone("vgg16", weights="none", output_stride=8, frozen_stages=2)
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [c.weight.requires_grad for c in convolutions] == [False] * 4 + [True] * 9
