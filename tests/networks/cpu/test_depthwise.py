import copy

import pytest
import torch
from torch import nn

from weakseg.networks.cpu.depthwise import DepthwiseConv2d, use_fast_gradients


def gradients(layer: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    (output * weights).sum().backward()
    assert images.grad is not None
    return [output.detach(), images.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(3, 1, 1), (5, 4, 2), (3, 0, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradients_are_the_librarys(
    kernel: int, padding: int, dilation: int, bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(
        6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=bias
    ).double()
    fast = copy.deepcopy(plain)
    use_fast_gradients(fast)
    assert type(fast) is DepthwiseConv2d
    images = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    for expected, found in zip(gradients(plain, images), gradients(fast, images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_mixed_precision_computes_in_bfloat16_and_keeps_gradients_of_weights_in_float32() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    fast = copy.deepcopy(plain)
    use_fast_gradients(fast)
    images = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(fast, images)
    assert [t.dtype for t in found] == [torch.bfloat16, *[torch.float32] * 3]
    for expected, value in zip(gradients(plain, images), found, strict=True):
        torch.testing.assert_close(value.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3),
    ],
)
def test_other_layers_stay_as_they_are(layer: nn.Module) -> None:
    use_fast_gradients(layer)
    assert type(layer) is nn.Conv2d


def test_weights_keep_their_names() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    before = dict(network.state_dict())
    use_fast_gradients(network)
    assert list(network.state_dict()) == list(before)
