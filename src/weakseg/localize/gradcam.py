"""Class activation maps by gradients, of any layer under any head.

With activations A_k of a layer and the gradients g_k of a class's logit by them, the map of the
class is, before its ReLU,

- "grad-cam" (Selvaraju et al. 2017): the sum over channels of mean(g_k) * A_k;
- "hirescam" (Draelos and Carin 2020): that of g_k * A_k, cell by cell;
- "layer-cam" (Jiang et al. 2021): that of ReLU(g_k) * A_k, cell by cell, which is also sharp in
  layers before the last.

Under global average pooling and a linear head the first two are, in the last layer, the CAM over
its number of cells.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.grid import grid_size
from weakseg.localize.cam import averaged, merge, outputs_of
from weakseg.localize.settings import Merging, Method
from weakseg.networks.cam_classifier import CamClassifier, with_mirror_image
from weakseg.networks.features import rescale

_METHODS: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    "grad-cam": lambda maps, gradients: gradients.mean(dim=(2, 3), keepdim=True) * maps,
    "hirescam": lambda maps, gradients: gradients * maps,
    "layer-cam": lambda maps, gradients: F.relu(gradients) * maps,
}


def gradient_maps(
    network: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int], method: Method
) -> Tensor:
    """Class maps of a layer, before ReLU, float32 (N, K, h, w).

    Nothing before the layer is differentiated, so that it may be frozen, and one class is at a
    time. While it runs, the layer belongs to it: another thread must not call the network.

    Args:
        network: gives logits (N, C) of images, each by itself: in eval mode.
        layer: a module inside that is called once and gives maps (N, D, h, w).
        images: what the network takes, N of them.
        classes: indices of the K logits.

    Raises:
        ValueError: the layer is no such module.
    """
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        with _cut(layer) as given:
            logits = network(images.float())
        if len(given) != 1:
            raise ValueError(f"the layer was called {len(given)} times; expected once")
        activations = given[0].detach()
        maps = activations.new_empty(len(images), len(classes), *activations.shape[2:])
        for row, index in enumerate(classes):
            (gradients,) = torch.autograd.grad(logits[:, index].sum(), given, retain_graph=True)
            maps[:, row] = _METHODS[method](activations, gradients).sum(dim=1)
    return maps


def localize_by_gradients(
    network: CamClassifier,
    photo: NDArray[np.uint8],
    classes: Sequence[int | Sequence[int]],
    scales: Sequence[float],
    stage: int | None,
    method: Method,
    merging: Merging,
) -> NDArray[np.float32]:
    """The CAM of one photo by gradients, over several scales and its mirror image.

    A logit is a mean over cells, so that the maps of a larger image are smaller; they are taken
    times their number of cells, as the CAM is, for all scales to count alike.

    Args:
        network: the trained classifier, in eval mode, its backbone not fused for inference.
        photo: uint8 (H, W, 3), RGB.
        classes: as `weakseg.localize.cam.localize_tags` has them; K tags.
        scales: factors on the photo's size at which maps are made.
        stage: index of the backbone's stage whose maps they are; None: the map that is pooled.
        merging: how the maps become one CAM.

    Returns:
        float32 (K, h, w) in [0, 1], on the grid.

    Raises:
        ValueError: the stage gives no maps, or they are not finite.
    """
    backbone = network.backbone
    layer = network.extra if stage is None else backbone.stage_module(stage)
    stride = (backbone.final if stage is None else backbone.stages[stage]).stride
    pair = with_mirror_image(photo, backbone.mean.device)
    outputs, sizes = outputs_of(classes)
    maps = []
    for scale in scales:
        images = rescale(pair, scale)
        each = [gradient_maps(network, layer, image[None], outputs, method) for image in images]
        height, width = (-(-side // stride) for side in images.shape[2:])
        of_tags = averaged(torch.cat(each)[..., :height, :width], sizes)
        maps.append(of_tags * (height * width))
    return merge(maps, grid_size(*photo.shape[:2]), merging).cpu().numpy()


@contextmanager
def _cut(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What a layer gives while the context lasts, as leaves from which the rest is computed."""
    given: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: object) -> Tensor:
        if not (isinstance(output, Tensor) and output.ndim == 4):
            raise ValueError("the layer gives no maps (N, D, h, w)")
        given.append(output.detach().requires_grad_())
        return given[-1].clone()  # what follows may change it in place

    hook = layer.register_forward_hook(cut)
    try:
        yield given
    finally:
        hook.remove()
