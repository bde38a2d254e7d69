from dataclasses import dataclass
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from tiny import Lines
from weakseg.stages.executor import Executor, InProcessExecutor
from weakseg.stages.fit import Loop


class _Line(L.LightningModule):
    """Learns y = 3 x by gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        loss = ((self.slope * x - y) ** 2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("nearness", -(self.slope - 3).abs().sum(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@dataclass(frozen=True)
class _Examples:
    def __call__(self, epoch: int | None) -> Dataset[tuple[Tensor, ...]]:
        x = torch.linspace(-1, 1, 16)[:, None]
        return TensorDataset(x, 3 * x)


class _Resting(InProcessExecutor):
    def __init__(self) -> None:
        self.rests = 0

    def rest(self) -> None:
        self.rests += 1


def _fit(
    folder: Path,
    devices: int,
    epochs: int = 3,
    loaders: bool = False,
    executor: Executor | None = None,
) -> tuple[float, list[dict[str, float]]]:
    training = _Line()
    figures = Loop(
        name="line",
        section="line",
        folder=folder,
        examples=_Examples(),
        epochs=epochs,
        batch_size=8,
        seed=0,
        precision="32-true",
        device=torch.device("cpu"),
        executor=executor or InProcessExecutor(),
        progress=Lines(),
        monitor="nearness",
        loaders=loaders,
        devices=devices,
    ).fit(training)
    return training.slope.item(), figures


def test_two_devices_learn_what_one_does(tmp_path: Path) -> None:
    (one, figures), (two, shared) = (_fit(tmp_path / str(n), devices=n) for n in (1, 2))
    assert one == pytest.approx(two, rel=0.05)
    assert [row["epoch"] for row in shared] == [row["epoch"] for row in figures] == [1, 2, 3]
    assert shared[-1]["loss"] == pytest.approx(figures[-1]["loss"], rel=0.2)
    assert shared[-1]["loss"] < shared[0]["loss"]


def test_several_devices_go_on_from_the_last_epoch(tmp_path: Path) -> None:
    whole, _ = _fit(tmp_path / "whole", devices=2, epochs=3)
    _fit(tmp_path / "cut", devices=2, epochs=1)
    resumed, figures = _fit(tmp_path / "cut", devices=2, epochs=3)
    assert resumed == whole
    assert [row["epoch"] for row in figures] == [1, 2, 3]


@pytest.mark.parametrize("loaders", [True, False])
def test_the_runs_workers_rest_while_loaders_work(tmp_path: Path, loaders: bool) -> None:
    executor = _Resting()
    _fit(tmp_path, 1, 1, loaders, executor)
    assert executor.rests == loaders
