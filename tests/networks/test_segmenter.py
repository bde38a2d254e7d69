import pytest
import torch

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone
from weakseg.networks.segmenter import Segmenter


def _network(output_stride: int = 16) -> Segmenter:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none", output_stride=output_stride)
    return Segmenter(backbone, classes=2, width=16)


@pytest.mark.parametrize("stride", [8, 16])
def test_logits_have_the_size_of_the_images(stride: int) -> None:
    network = _network(output_stride=stride).eval()
    assert network(torch.rand(2, 3, 41, 64)).shape == (2, 3, 41, 64)


def test_a_side_that_is_no_multiple_of_the_stride_sees_the_mean_beyond_its_edge() -> None:
    network = _network().eval()
    image = torch.rand(1, 3, 32, 41)
    mean = network.backbone.mean.expand(1, 3, 32, 48)
    filled = mean.clone()
    filled[..., :41] = image
    torch.testing.assert_close(network(image), network(filled)[..., :41], atol=1e-5, rtol=1e-4)


def test_every_parameter_is_the_backbones_or_new() -> None:
    network = _network()
    parts = {id(p) for p in (*network.backbone.parameters(), *network.new_parameters())}
    assert parts == {id(p) for p in network.parameters()}


def test_without_a_coarse_enough_map_there_is_no_deeplab() -> None:
    with pytest.raises(WeaksegError, match="output stride of 8 or 16"):
        _network(output_stride=32)
