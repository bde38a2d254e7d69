"""Optimizers with one learning rate for what is pretrained and one for what is new."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from weakseg.strict import checked

# A recipe holds these settings, and is read where nothing is trained.
if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer as TorchOptimizer

Rate = Annotated[float, Field(gt=0, le=1000)]
"""Published rates end at some 30, those of linear heads on frozen features."""
Decay = Annotated[float, Field(ge=0, le=10)]


class _Buildable:
    """What every optimizer has.

    Attributes:
        name: which it is.
        lr: learning rate of the pretrained part, over 0 and at most 1000.
        head_lr: learning rate of the new part, likewise.
        weight_decay: L2 factor, in [0, 10].
    """

    def build(
        self, pretrained: "Iterable[Parameter]", new: "Iterable[Parameter]"
    ) -> "TorchOptimizer":
        from torch import optim

        kinds: dict[str, Any] = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}
        own: dict[str, Any] = vars(self).copy()
        kind = kinds[own.pop("name")]
        groups = [
            {
                "name": "lr",
                "params": [p for p in pretrained if p.requires_grad],
                "lr": own.pop("lr"),
            },
            {"name": "head_lr", "params": list(new), "lr": own.pop("head_lr")},
        ]
        built: TorchOptimizer = kind([group for group in groups if group["params"]], **own)
        return built


@checked
class SGD(_Buildable):
    """Stochastic gradient descent.

    Attributes:
        momentum: in [0, 1). Published results of the IRN, SEAM and SIPE family were trained with
            momentum near 0, since their code hands the weight decay to it.
    """

    name: Literal["sgd"]
    lr: Rate
    head_lr: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Decay


@checked
class Adam(_Buildable):
    """Adam, with the weight decay added to the gradient (L2)."""

    name: Literal["adam"]
    lr: Rate
    head_lr: Rate
    weight_decay: Decay


@checked
class AdamW(_Buildable):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    lr: Rate
    head_lr: Rate
    weight_decay: Decay


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
