from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from weakseg.grid import grid_size
from weakseg.networks.backbones import Backbone
from weakseg.networks.irnet import IRNet, relate


@pytest.fixture
def network() -> IRNet:
    torch.manual_seed(0)
    return IRNet(Backbone("test_efficientnet", weights="none")).eval()


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (64, 64), (65, 98)])
def test_relations_lie_on_the_grid(network: IRNet, size: tuple[int, int]) -> None:
    boundary, displacement = network(torch.rand(2, 3, *size))
    assert boundary.shape == (2, 1, *grid_size(*size))
    assert displacement.shape == (2, 2, *grid_size(*size))


def shapes(branch: nn.Module) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            bias = module.bias is not None
            found.append((module.in_channels, module.out_channels, module.kernel_size, bias))
        elif isinstance(module, nn.GroupNorm):
            found.append((module.num_groups, module.num_channels))
    return found


def test_on_resnet50_the_branches_are_the_papers() -> None:
    backbone = Backbone("resnet50", weights="none", output_stride=16, dilated=False)
    network = IRNet(backbone)
    one = (1, 1)
    boundary, displacement = [], []
    for channels in (64, 256, 512, 1024, 2048):
        boundary += [(channels, 32, one, False), (4, 32)]
    assert shapes(network.boundary) == [*boundary, (160, 1, one, True)]
    for channels, width, groups in (
        (64, 64, 8),
        (256, 128, 16),
        (512, 256, 16),
        (1024, 256, 16),
        (2048, 256, 16),
        (768, 256, 16),
        (448, 256, 16),
    ):
        displacement += [(channels, width, one, False), (groups, width)]
    assert shapes(network.displacement) == [*displacement, (256, 2, one, False)]
    given: dict[str, torch.Tensor] = {}
    network.displacement.levels[0].register_forward_hook(
        lambda module, inputs, output: given.update(stem=inputs[0])
    )
    images = torch.rand(1, 3, 45, 70)
    network(images)
    model = backbone.model
    normalised = (images - backbone.mean) / backbone.std
    with torch.no_grad():
        stem = model.maxpool(model.act1(model.bn1(model.conv1(normalised))))
    torch.testing.assert_close(given["stem"], stem)


def test_nothing_of_the_backbone_changes_in_training() -> None:
    network = IRNet(Backbone("test_efficientnet", weights="none"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    assert network.training and not any(m.training for m in network.backbone.modules())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0, weight_decay=0.1)
    for _ in range(2):
        boundary, displacement = network(torch.rand(2, 3, 40, 40))
        (boundary.square().mean() + displacement.square().mean()).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        same = name.startswith("backbone.") or name == "mean_displacement"
        assert torch.equal(value, before[name]) == same, name


def test_the_mean_displacement_is_subtracted_in_eval_mode_alone(network: IRNet) -> None:
    images = torch.rand(1, 3, 32, 40)
    raw = network(images).displacement
    network.mean_displacement.copy_(torch.tensor([2.0, -3.0]))
    shifted = network(images).displacement
    torch.testing.assert_close(
        raw - shifted, torch.tensor([2.0, -3.0]).view(2, 1, 1).expand_as(raw)
    )
    torch.testing.assert_close(network.train()(images).displacement, raw)


def test_a_photos_boundary_is_the_mean_over_its_mirror_image(network: IRNet) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    boundary, displacement = relate(network, photo)
    assert boundary.dtype == displacement.dtype == np.float32
    assert boundary.shape == (10, 16) and displacement.shape == (2, 10, 16)
    assert boundary.min() >= 0 and boundary.max() <= 1
    images = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        plain, flipped = network(images), network(images.flip(-1))
    logits = (plain.boundary + flipped.boundary.flip(-1))[0, 0] / 2
    np.testing.assert_allclose(boundary, logits.sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(displacement, plain.displacement[0].numpy(), atol=1e-4)
    mirrored, _ = relate(network, photo[:, ::-1].copy())
    np.testing.assert_allclose(mirrored[:, ::-1], boundary, atol=1e-5)
