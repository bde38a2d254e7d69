"""How much memory a training takes, found before it is asked for."""

import copy

import torch
from torch import Tensor, nn


def training_bytes(network: nn.Module, count: int, side: int) -> int:
    """What a step keeps of float32 maps for its gradients, of `count` images of `side` pixels.

    By a pass without numbers, on PyTorch's meta device. Weights and what comes and goes within the
    step are not counted: a step takes at least this.
    """
    shapes = copy.deepcopy(network).to("meta").eval()  # BatchNorm would refuse a single image
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        shapes(torch.empty(count, 3, side, side, device="meta"))
    weights = {weight.untyped_storage()._cdata for weight in shapes.parameters()}
    return sum(
        tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights
    )
