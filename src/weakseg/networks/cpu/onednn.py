"""What oneDNN, torch's library for CPUs, can do here.

torch has it behind operators that are not public: where one is missing, so is what it does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_HAS = {
    torch.bfloat16: "_is_mkldnn_bf16_supported",
    torch.float16: "_is_mkldnn_fp16_supported",
}
_CONVOLVE = "_convolution_pointwise"


def computes(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for a type; without them float32 is far faster."""
    if dtype == torch.float32:
        return True
    has = getattr(torch.ops.mkldnn, _HAS[dtype], None) if dtype in _HAS else None
    return has is not None and bool(has())


def fuses(maps: Tensor) -> bool:
    """Whether it convolves such maps and applies an activation at once; elsewhere torch does."""
    on_cpu = maps.device.type == "cpu" and torch.backends.mkldnn.is_available()
    takes = maps.dtype in (torch.float32, torch.bfloat16) and computes(maps.dtype)
    return on_cpu and takes and hasattr(torch.ops.mkldnn, _CONVOLVE)


def convolve(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    arguments: Sequence[float],
) -> Tensor:
    """A convolution of maps that it `fuses`, and an activation by oneDNN's name of it."""
    operator = getattr(torch.ops.mkldnn, _CONVOLVE)
    found: Tensor = operator(
        maps, weight, bias, padding, stride, dilation, groups, activation, arguments, ""
    )
    return found
