import os
import signal
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, get_worker_info

from tiny import Lines, Start, tiny_recipe
from weakseg import processes
from weakseg.data.images import read_photo
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.methods.base import Executor
from weakseg.methods.fit import Examples, Loop
from weakseg.training.classifier import ClassifierTraining


class _Line(L.LightningModule):
    """Learns y = 3 x by gradient descent."""

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self._rate = rate

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        loss = ((self.slope * x - y) ** 2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("nearness", -(self.slope - 3).abs().sum(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self._rate)


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
    rate: float = 0.1,
    examples: Examples = _Examples(),
    training: _Line | None = None,
    **others: Any,
) -> tuple[float, list[dict[str, float]]]:
    training = training or _Line(rate)
    figures = Loop(
        name="line",
        section="line",
        folder=folder,
        examples=examples,
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
        **others,
    ).fit(training)
    return training.slope.item(), figures


@pytest.mark.parametrize("loaders", [True, False])
def test_the_runs_workers_rest_while_loaders_work(tmp_path: Path, loaders: bool) -> None:
    executor = _Resting()
    _fit(tmp_path, 1, 1, loaders, executor)
    assert executor.rests == loaders


@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (1e38, "epoch 1 of 3 leaves NaN or infinity in its weights"),
        (1e15, "its mean loss in epoch 1 of 3 is [0-9.]+e[+0-9]+, at the start 3.4"),
        (10, "its mean loss in epoch 2 of 3 is"),
    ],
)
def test_a_training_that_diverges_ends_in_one_line(
    tmp_path: Path, rate: float, reason: str
) -> None:
    with pytest.raises(WeaksegError, match=f"line diverged: {reason}") as caught:
        _fit(tmp_path, 1, rate=rate)
    assert str(caught.value).endswith(f"Lower line.optimizer.lr (now {rate:g}).")
    assert not any((tmp_path / name).exists() for name in ("best.ckpt", "last.ckpt")) or rate == 10


@pytest.mark.slow
def test_a_process_of_several_that_diverges_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="line diverged: epoch 1 of 3 leaves") as caught:
        _fit(tmp_path, 2, rate=1e38)
    assert "\n" not in str(caught.value)


class _Faulty(Dataset[tuple[Tensor, ...]]):
    def __init__(self, fault: str) -> None:
        self._fault = fault

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index == 9:
            if self._fault == "killed":
                assert get_worker_info() is not None
                os.kill(os.getpid(), signal.SIGKILL)
            if self._fault == "vanished":
                read_photo(Path("gone.jpg"))
            raise MemoryError
        return torch.zeros(1), torch.zeros(1)


@dataclass(frozen=True)
class _FaultyExamples:
    fault: str

    def __call__(self, epoch: int | None) -> Dataset[tuple[Tensor, ...]]:
        return _Faulty(self.fault)


@pytest.mark.parametrize(
    ("fault", "loaders", "message"),
    [
        ("killed", True, "line: a process of the training was ended from outside, most likely for"),
        ("vanished", True, "gone.jpg can't be read: no such file or directory."),
        ("vanished", False, "gone.jpg can't be read: no such file or directory."),
        ("full", True, "line runs out of memory: lower the batch size."),
        ("full", False, "line runs out of memory: lower the batch size."),
    ],
)
def test_what_ends_a_training_is_said_in_one_line(
    tmp_path: Path, fault: str, loaders: bool, message: str
) -> None:
    with pytest.raises(WeaksegError) as caught:
        _fit(tmp_path, 1, loaders=loaders, examples=_FaultyExamples(fault))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class _Count:
    count: int

    def __call__(self, epoch: int | None) -> Dataset[tuple[Tensor, ...]]:
        x = torch.linspace(-1, 1, self.count)[:, None]
        return TensorDataset(x, 3 * x)


def test_a_batch_in_parts_makes_the_steps_of_a_whole_one(tmp_path: Path) -> None:
    slope, figures = _fit(tmp_path / "whole", 1, examples=_Count(22))
    parted, others = _fit(tmp_path / "parts", 1, examples=_Count(22), accumulate=4)
    assert parted == pytest.approx(slope, rel=1e-5)
    for row, other in zip(figures, others, strict=True):
        assert other == pytest.approx(row, rel=1e-5)


@pytest.mark.slow
def test_two_devices_part_the_parts_of_a_batch(tmp_path: Path) -> None:
    slope, _ = _fit(tmp_path / "whole", 1)
    parted, _ = _fit(tmp_path / "parts", 2, accumulate=4)
    assert parted == pytest.approx(slope, rel=1e-5)


class _Noting(_Line):
    """Notes what each pass has, what is drawn in it, and after how many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, int, float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.passes.append((self.global_step, len(batch[0]), torch.rand(1).item()))
        return super().training_step(batch, index)


@pytest.mark.parametrize(
    ("count", "every_example", "steps"),
    [
        (16, False, [[2, 2, 2, 2], [2, 2, 2, 2]]),
        (21, False, [[2, 2, 2, 2], [2, 2, 2, 2]]),
        (21, True, [[2, 2, 2, 2], [2, 2, 2, 2], [2, 1, 1, 1]]),
        (10, True, [[2, 2, 2, 2], [1, 1]]),
        (7, False, [[3, 2, 2]]),
        (5, False, [[3, 2]]),
        (1, False, [[1]]),
    ],
)
def test_into_which_parts_batches_go(
    tmp_path: Path, count: int, every_example: bool, steps: list[list[int]]
) -> None:
    training = _Noting()
    parts: dict[str, Any] = {"accumulate": 4, "every_example": every_example}
    _fit(tmp_path, 1, 1, examples=_Count(count), training=training, **parts)
    found = [[n for at, n, _ in training.passes if at == step] for step in range(len(steps))]
    assert found == steps
    assert len({drawn for _, _, drawn in training.passes}) == len(training.passes)


def test_a_recipes_batches_go_in_parts(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    step = ClassifierTraining.training_step

    def look(self: ClassifierTraining, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        passed.append(len(batch[1]))
        return step(self, batch, index)

    monkeypatch.setattr(ClassifierTraining, "training_step", look)
    left_out = dict.fromkeys(("cam", "cam+crf", "seed", "svm", "svm+crf"))
    weights = []
    for parts in (1, 2):
        classify = {"batch_size": 4, "accumulate": parts}
        start(photos, tmp_path / str(parts), tiny_recipe(classify=classify, **left_out))
        weights.append(load_file(tmp_path / str(parts) / "classify" / "classifier.safetensors"))
        assert set(passed) == {4 // parts}
        passed.clear()
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, rtol=1e-3, atol=1e-5)


class _Telling(Dataset[tuple[Tensor, ...]]):
    """Examples that write down which process has started the one that makes them."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        with self._told.open("a") as told:
            print(os.getppid(), file=told)
        return torch.zeros(1), torch.zeros(1)


@dataclass(frozen=True)
class _TellingExamples:
    told: Path

    def __call__(self, epoch: int | None) -> Dataset[tuple[Tensor, ...]]:
        return _Telling(self.told)


@pytest.mark.parametrize("library", ["obstore", "ray", None])
def test_examples_are_not_made_in_forks_of_a_process_that_uses_threads_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str | None
) -> None:
    if library is None and "ray" in sys.modules and sys.version_info >= (3, 13):
        pytest.skip("another test uses Ray in this process, whose forks end")
    for name in ("obstore", "ray"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if library:
        monkeypatch.setitem(sys.modules, library, sys)
    told = tmp_path / "told"
    _fit(tmp_path, 1, 1, loaders=True, examples=_TellingExamples(told))
    parents = {int(line) for line in told.read_text().split()}
    assert (os.getpid() in parents) is (library is None)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
def test_forks_that_make_examples_end_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "forks_fail", lambda: False)
    monkeypatch.setattr(
        processes, "end_with_parent", lambda number: (tmp_path / f"loader-{number}").touch()
    )
    _fit(tmp_path, 1, 1, loaders=True)
    assert (tmp_path / "loader-0").exists()


@pytest.mark.parametrize("fault", ["compressed", "other"])
def test_a_checkpoint_that_is_none_is_left(tmp_path: Path, fault: str) -> None:
    _fit(tmp_path, 1, epochs=1)
    last = tmp_path / "last.ckpt"
    whole = torch.load(last, weights_only=True)
    if fault == "other":
        torch.save({"state_dict": whole["state_dict"]}, last)
    else:
        with zipfile.ZipFile(last) as stored:
            entries = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(last, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in entries.items():
                packed.writestr(name, content + bytes(2**20))
    assert _fit(tmp_path, 1, epochs=1)[1][0]["epoch"] == 1
    assert torch.load(last, weights_only=True).keys() == whole.keys()


def test_a_disk_that_is_full_ends_a_training_in_one_line_and_costs_an_epoch(
    tmp_path: Path,
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WeaksegError, match=r"Can't write .*\.ckpt: File too large\. Choose"):
            _fit(tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    assert _fit(tmp_path, 1)[0] == _fit(tmp_path / "whole", 1)[0]
