"""Training of the CAM classifier on image tags."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from weakseg.networks.cam_classifier import UNKNOWN, CamClassifier, multi_label_loss
from weakseg.training.devices import share_of_photos
from weakseg.training.optimizers import Optimizer, check_finite, polynomial_decay


class ClassifierTraining(L.LightningModule):
    """Multi-label training with polynomial decay; validated by F1 and mAP on held-out tags.

    Logs `loss` (mean of the epoch), `f1` and `map` (means over the classes that the held-out
    photos have). The F1 and average precision of each class are in `per_class` after a
    validation, with the `base_rate`: the share of photos that have it, which is the average
    precision of guesses. `UNKNOWN` targets count in none of them.

    Args:
        network: the classifier.
        optimizer: its learning rates are the backbone's and the head's.
        decay_power: the learning rate is `lr * (1 - step / steps) ** decay_power`.
        kept: whether batches hold features that were kept, one by one, pooled or maps, rather than
            images.
    """

    def __init__(
        self,
        network: CamClassifier,
        optimizer: Optimizer,
        decay_power: float,
        kept: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._decay_power = decay_power
        self._kept = kept
        classes = network.head.out_channels
        columns = max(2, classes)  # torchmetrics takes one label for no multi-label task
        self._f1 = MultilabelF1Score(columns, average=None)
        self._average_precision = MultilabelAveragePrecision(columns, average=None)
        self._seen = torch.zeros(classes)
        self._judged = torch.zeros(classes)
        self.per_class: dict[str, list[float | None]] = {}

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, tags = batch
        loss = multi_label_loss(self._predict(inputs), tags) * share_of_photos(tags)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._seen = torch.zeros_like(self._seen, device=self.device)
        self._judged = torch.zeros_like(self._seen)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        inputs, tags = batch
        logits = self._predict(inputs).float()
        check_finite(logits, self.current_epoch)
        # Neither figure counts a true negative with the lowest score.
        known = tags != UNKNOWN
        scores, tags = logits.sigmoid() * known, tags * known
        self._seen += tags.sum(dim=0)
        self._judged += known.sum(dim=0)
        if tags.shape[1] == 1:
            scores, tags = F.pad(scores, (0, 1)), F.pad(tags, (0, 1))
        self._f1.update(scores, tags.int())
        self._average_precision.update(scores, tags.int())

    def on_validation_epoch_end(self) -> None:
        classes = len(self._seen)
        with_tag, judged = (
            self.all_gather(counts).reshape(-1, classes).sum(dim=0)
            for counts in (self._seen, self._judged)
        )
        seen = with_tag > 0
        f1 = self._f1.compute()[:classes]
        average_precision = self._average_precision.compute()[:classes]
        self._f1.reset()
        self._average_precision.reset()
        self.log("f1", _mean(f1, seen))
        self.log("map", _mean(average_precision, seen))
        self.per_class = {
            "f1": _known(f1, seen),
            "average_precision": _known(average_precision, seen),
            "base_rate": _known(with_tag / judged, seen),
        }

    def _predict(self, inputs: Any) -> Tensor:
        if not self._kept:
            logits: Tensor = self.network(inputs)
            return logits
        if inputs[0].ndim == 1:
            return self.network.classify_kept(torch.stack(tuple(inputs)))
        return torch.cat([self.network.classify_kept(features) for features in inputs])

    def new_parameters(self) -> Iterator[Parameter]:
        """What learns at the head's rate."""
        return self.network.new_parameters()

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer.build(self.network.backbone.parameters(), self.new_parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        return polynomial_decay(optimizer, steps, self._decay_power)


def _mean(values: Tensor, seen: Tensor) -> Tensor:
    return values[seen].mean() if seen.any() else torch.tensor(0.0)


def _known(values: Tensor, seen: Tensor) -> list[float | None]:
    return [float(v) if known else None for v, known in zip(values, seen, strict=True)]
