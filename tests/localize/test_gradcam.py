from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weakseg.grid import grid_size
from weakseg.localize.cam import localize_tags
from weakseg.localize.gradcam import gradient_maps, localize_by_gradients
from weakseg.localize.settings import Merging, Method
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.networks.cpu.depthwise import use_fast_gradients

CLASSES = 4


def classifier(backbone: str = "test_efficientnet", head: str = "linear") -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(Backbone(backbone, weights="none"), CLASSES, head).eval()  # type: ignore[arg-type]
    nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def network() -> CamClassifier:
    return classifier()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 61, 83, generator=torch.Generator().manual_seed(1))


def naive_maps(
    network: CamClassifier, stage: int, images: Tensor, c: int, method: Method
) -> np.ndarray:
    """With the whole graph, and the sums over channels and cells written out."""
    held = []
    layer = network.backbone.stage_module(stage)
    hook = layer.register_forward_hook(lambda *given: held.append(given[-1]))
    logits = network(images)
    hook.remove()
    maps = []
    for n in range(len(images)):
        whole = torch.autograd.grad(logits[n, c], held[0], retain_graph=True)[0]
        gradients, activations = whole[n].numpy(), held[0][n].detach().numpy()
        one = np.zeros(gradients.shape[1:])
        for g, a in zip(gradients, activations, strict=True):
            if method == "grad-cam":
                one += g.mean() * a
            else:
                one += (g if method == "hirescam" else np.maximum(g, 0)) * a
        maps.append(one)
    return np.stack(maps)


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_maps_of_a_stage_are_as_written_out(backbone: str, method: Method, images: Tensor) -> None:
    network = classifier(backbone)
    for stage in (0, 2):
        layer = network.backbone.stage_module(stage)
        found = gradient_maps(network, layer, images, [3, 1], method)
        assert found.dtype == torch.float32 and not found.requires_grad
        for row, c in enumerate([3, 1]):
            expected = naive_maps(network, stage, images, c, method)
            scale = abs(expected).max()
            np.testing.assert_allclose(found[:, row] / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "extra_convolutions"])
def test_under_a_linear_head_grad_cam_and_hirescam_are_the_cam_over_its_cells(
    head: str, images: Tensor
) -> None:
    network = classifier(head=head)
    with torch.no_grad():
        cam = network.class_maps(images).maps
    expected = cam / (cam.shape[2] * cam.shape[3])
    tolerance = 1e-5 * float(expected.abs().max())
    for method in ("grad-cam", "hirescam"):
        maps = gradient_maps(network, network.extra, images, range(CLASSES), method)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=tolerance)


def test_layer_cam_is_the_cam_where_no_weight_is_negative(images: Tensor) -> None:
    network = classifier()
    nn.init.uniform_(network.head.weight[0])
    with torch.no_grad():
        cam = network.class_maps(images).maps
    maps = gradient_maps(network, network.extra, images, [0, 1], "layer-cam") * cam[0, 0].numel()
    scale = float(cam.abs().max())
    torch.testing.assert_close(maps[:, 0], cam[:, 0], rtol=1e-4, atol=1e-5 * scale)
    assert not torch.allclose(maps[:, 1], cam[:, 1], atol=0.1 * scale)


@pytest.mark.parametrize("merging", [Merging(), Merging("maximum", "each_scale", "photo")], ids=str)
def test_over_scales_grad_cam_of_the_final_map_is_the_cam(
    network: CamClassifier, photo: np.ndarray, merging: Merging
) -> None:
    classes, scales = [2, 0], [0.5, 1.0, 1.5]
    found = localize_by_gradients(network, photo, classes, scales, None, "grad-cam", merging)
    expected = localize_tags(network, photo, classes, scales, merging=merging).cam
    assert found.dtype == np.float32 and found.shape == (2, *grid_size(61, 83))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("backbone", ["convnext_atto", "test_efficientnet"])
@pytest.mark.parametrize("size", [(1, 50), (33, 70)])
def test_odd_sizes(backbone: str, size: tuple[int, int]) -> None:
    network, photo = classifier(backbone), np.full((*size, 3), 99, np.uint8)
    for stage in (1, None):
        found = localize_by_gradients(network, photo, [1], [0.5, 1], stage, "layer-cam", Merging())
        assert found.shape == (1, *grid_size(*size)) and np.isfinite(found).all()
    assert localize_by_gradients(network, photo, [], [1], 1, "grad-cam", Merging()).shape[0] == 0


def test_a_frozen_network_gives_the_same_maps(images: Tensor) -> None:
    free, frozen = classifier(), classifier()
    frozen.requires_grad_(False)
    use_fast_gradients(frozen)
    one, other = (
        gradient_maps(of, of.backbone.stage_module(1), images, [0, 2], "layer-cam")
        for of in (free, frozen)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_what_follows_a_layer_may_work_in_place(images: Tensor) -> None:
    network = classifier(head="extra_convolutions")
    before, after = network.extra[4], network.extra[5]
    assert isinstance(after, nn.ReLU) and after.inplace
    below = gradient_maps(network, before, images, [1], "hirescam")
    above = gradient_maps(network, after, images, [1], "hirescam")
    torch.testing.assert_close(below, above)  # ReLU is linear on each side of zero


@contextmanager
def unchanged(network: CamClassifier) -> Iterator[None]:
    def state() -> list[object]:
        return [
            (m.training, len(m._forward_hooks), [(p.requires_grad, p.grad) for p in m.parameters()])
            for m in network.modules()
        ]

    before = state()
    yield
    assert state() == before


def test_the_network_is_left_as_it_was(images: Tensor) -> None:
    network = classifier()
    network.extra.train()
    network.head.weight.requires_grad_(False)
    layer = network.backbone.stage_module(1)
    with unchanged(network):
        gradient_maps(network, layer, images, [0], "grad-cam")
    with unchanged(network), pytest.raises(RuntimeError):
        gradient_maps(network, layer, images[:, :2], [0], "grad-cam")
    with unchanged(network), pytest.raises(IndexError):
        gradient_maps(network, layer, images, [CLASSES], "grad-cam")


def test_a_layer_that_gives_no_maps_is_refused(network: CamClassifier, images: Tensor) -> None:
    flat = nn.Sequential(network.backbone.model.conv_stem, nn.Flatten())
    with pytest.raises(ValueError, match="the layer gives no maps"):
        gradient_maps(flat, flat[1], images, [0], "grad-cam")
    twice = nn.Sequential(layer := nn.ReLU(), layer)
    with pytest.raises(ValueError, match="called 2 times"):
        gradient_maps(twice, layer, images, [0], "grad-cam")


def test_maps_that_are_no_numbers_are_refused(photo: np.ndarray) -> None:
    network = classifier()
    network.head.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        localize_by_gradients(network, photo, [0], [1.0], None, "grad-cam", Merging())


def test_autocast_around_it_changes_nothing(network: CamClassifier, images: Tensor) -> None:
    layer = network.backbone.stage_module(1)
    plain = gradient_maps(network, layer, images, [0], "layer-cam")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        inside = gradient_maps(network, layer, images, [0], "layer-cam")
    torch.testing.assert_close(inside, plain, rtol=0, atol=0)


def test_outputs_of_one_tag_are_averaged_as_those_of_a_cam(
    network: CamClassifier, photo: np.ndarray
) -> None:
    classes: list[int | list[int]] = [[0, 3], 1]
    scales = [0.5, 1.0]
    cam = localize_tags(network, photo, classes, scales).cam
    found = localize_by_gradients(network, photo, classes, scales, None, "grad-cam", Merging())
    np.testing.assert_allclose(found, cam, atol=1e-3)
