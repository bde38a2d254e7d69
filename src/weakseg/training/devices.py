"""What the losses of several devices come to together."""

import torch
from torch import Tensor, distributed


def share_of(count: Tensor) -> Tensor:
    """What to multiply a device's mean over `count` with; 1 on one device, and for equal counts.

    Devices' gradients are averaged, each counting the same. So multiplied, that is the gradient of
    the mean over all that the devices have, as of one device that has the whole batch.

    Args:
        count: of photos, pixels or pairs; of any shape, each for itself. All devices call this.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return torch.ones_like(count)
    of_all = count.clone()
    distributed.all_reduce(of_all)
    return count * distributed.get_world_size() / of_all.clamp(min=1)


def share_of_photos(batch: Tensor) -> Tensor:
    """`share_of` the number of photos of a batch (N, ...)."""
    return share_of(torch.full((), len(batch), device=batch.device))
