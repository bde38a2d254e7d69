"""Arrays on a device."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of an array's values on a device, whatever the array is a view of.

    On a CPU the two may share their memory.
    """
    writable = np.require(array, requirements=["C", "W"])
    return torch.from_numpy(writable).to(device)
