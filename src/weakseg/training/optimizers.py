"""Optimizers with one learning rate for what is pretrained and one for what is new."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

# A recipe holds these settings, and is read where nothing is trained.
if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer as TorchOptimizer

_HIGHEST_RATE = 1000
"""Published rates end at some 30, those of linear heads on frozen features."""
_HIGHEST_DECAY = 10


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Attributes:
        lr: learning rate of the pretrained part, over 0 and at most 1000.
        head_lr: learning rate of the new part, likewise.
        momentum: in [0, 1). Published results of the IRN, SEAM and SIPE family were trained with
            momentum near 0, since their code hands the weight decay to it.
        weight_decay: L2 factor, in [0, 10].
    """

    name: Literal["sgd"]
    lr: float
    head_lr: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        _check_rates(self.lr, self.head_lr, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected 0 <= momentum < 1")

    def build(
        self, pretrained: "Iterable[Parameter]", new: "Iterable[Parameter]"
    ) -> "TorchOptimizer":
        from torch import optim

        groups = _groups(pretrained, self.lr, new, self.head_lr)
        return optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class _AdamFamily:
    name: str
    lr: float
    head_lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        _check_rates(self.lr, self.head_lr, self.weight_decay)

    def build(
        self, pretrained: "Iterable[Parameter]", new: "Iterable[Parameter]"
    ) -> "TorchOptimizer":
        from torch import optim

        groups = _groups(pretrained, self.lr, new, self.head_lr)
        kinds: dict[str, type[optim.Adam]] = {"adam": optim.Adam, "adamw": optim.AdamW}
        return kinds[self.name](groups, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Adam(_AdamFamily):
    """Adam, with the weight decay added to the gradient (L2); attributes as for `SGD`."""

    name: Literal["adam"]


@dataclass(frozen=True)
class AdamW(_AdamFamily):
    """Adam with decoupled weight decay; attributes as for `SGD`."""

    name: Literal["adamw"]


Optimizer = SGD | Adam | AdamW


def polynomial_decay(optimizer: "TorchOptimizer", steps: int, power: float) -> dict[str, Any]:
    """For Lightning: rates that fall as `(1 - step / steps) ** power`."""
    from torch.optim.lr_scheduler import LambdaLR

    decay = LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps) ** power)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


def check_finite(logits: "Tensor", epoch: int) -> None:
    """Raise FloatingPointError where a network gives NaN or infinity after an epoch, from 0."""
    if not logits.isfinite().all():
        raise FloatingPointError(f"epoch {epoch + 1} leaves NaN or infinity in its outputs")


def _check_rates(lr: float, head_lr: float, weight_decay: float) -> None:
    for name, rate in (("lr", lr), ("head_lr", head_lr)):
        if not 0 < rate <= _HIGHEST_RATE:
            raise ValueError(f"{name} is {rate}; expected 0 < {name} <= {_HIGHEST_RATE}")
    if not 0 <= weight_decay <= _HIGHEST_DECAY:
        raise ValueError(f"weight_decay is {weight_decay}; expected 0 to {_HIGHEST_DECAY}")


def _groups(
    pretrained: "Iterable[Parameter]", lr: float, new: "Iterable[Parameter]", head_lr: float
) -> list[dict[str, Any]]:
    groups = [
        {"name": "lr", "params": [p for p in pretrained if p.requires_grad], "lr": lr},
        {"name": "head_lr", "params": list(new), "lr": head_lr},
    ]
    return [group for group in groups if group["params"]]
