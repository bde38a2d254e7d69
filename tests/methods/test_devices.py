"""Training on several devices: here processes of one CPU, which gloo joins."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from tiny import BACKBONE, NETWORK, Lines
from weakseg.data.dataset import load_dataset
from weakseg.engine.executor import InProcessExecutor
from weakseg.methods.classifier import TaggedExamples
from weakseg.methods.fit import (
    Loop,
    MaskedExamples,
    batches_of,
    fill_of,
    mask_pairs,
    synchronize_statistics,
)
from weakseg.methods.irnet import Irnet
from weakseg.methods.networks import build_classifier, build_irnet, build_segmenter
from weakseg.methods.settings import BackboneSection
from weakseg.networks.segmenter import Segmenter
from weakseg.networks.sipe import Sides
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.irnet import IRNetTraining
from weakseg.training.segmentation import SegmentationTraining
from weakseg.training.sipe import SipeTraining

SETTINGS = Irnet.model_validate({**NETWORK, "decay_power": 0})


@pytest.mark.parametrize(
    ("count", "size", "least", "drop_last", "expected"),
    [
        (10, 4, 1, True, [range(4), range(4, 8)]),
        (10, 4, 1, False, [range(4), range(4, 8), range(8, 10)]),
        (3, 4, 2, True, [range(3)]),
        (3, 4, 2, False, [range(3)]),
        (9, 4, 2, False, [range(4), range(4, 9)]),
        (10, 4, 2, False, [range(4), range(4, 8), range(8, 10)]),
        (8, 4, 4, True, [range(4), range(4, 8)]),
        (0, 4, 1, False, []),
    ],
)
def test_batches_are_whole_or_large_enough_for_all_devices(
    count: int, size: int, least: int, drop_last: bool, expected: list[range]
) -> None:
    assert batches_of(count, size, least, drop_last) == expected


def _fit(
    folder: Path, training: L.LightningModule, examples: Any, devices: int, epochs: int
) -> tuple[list[dict[str, float]], Lines]:
    lines = Lines()
    loop = Loop(
        name="small",
        section="small",
        folder=folder,
        examples=examples,
        epochs=epochs,
        batch_size=5,
        seed=0,
        precision="32-true",
        device=torch.device("cpu"),
        executor=InProcessExecutor(),
        progress=lines,
        monitor="f1" if isinstance(training, ClassifierTraining) else None,
        loaders=False,
        devices=devices,
    )
    return loop.fit(training), lines


def _assert_equal(
    one: L.LightningModule,
    several: L.LightningModule,
    figures: list[dict[str, float]],
    others: list[dict[str, float]],
) -> None:
    for row, other in zip(figures, others, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-6)
    for name, weights in one.state_dict().items():
        torch.testing.assert_close(several.state_dict()[name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_devices_go_on_as_one_would(photos: Path, tmp_path: Path) -> None:
    """Batches of 5 make shares of 3 and 2, of which each kind of pairs has other numbers."""
    samples = load_dataset(photos, "all").samples
    pairs = mask_pairs(samples, [photos / "SegmentationClass"])

    def train(folder: Path, parts: list[tuple[int, int]]) -> tuple[Any, list[dict[str, float]]]:
        torch.manual_seed(0)
        network = build_irnet(SETTINGS.backbone)
        examples = MaskedExamples(pairs, pairs, SETTINGS, 0, fill_of(network))
        training = IRNetTraining(network, SETTINGS.optimizer, SETTINGS.decay_power)
        for devices, epochs in parts:
            figures, lines = _fit(folder, training, examples, devices, epochs)
            said = "small: 5 examples a step, parted among 2 devices; learning rates are as the"
            assert any(said in line for line in lines.said) == (devices > 1)
        return training, figures

    one, figures = train(tmp_path / "one", [(1, 3)])
    two, others = train(tmp_path / "two", [(1, 1), (2, 3)])
    assert len({row["loss"] for row in figures}) == 3
    _assert_equal(one, two, figures, others)


@pytest.mark.slow
def test_two_devices_learn_and_judge_as_one_does(photos: Path, tmp_path: Path) -> None:
    """3 photos are held out: whoever counts one of them twice finds another F1."""
    dataset = load_dataset(photos, "all")
    section = BackboneSection.model_validate({**BACKBONE, "frozen_stages": 1})

    def train(devices: int) -> tuple[Any, list[dict[str, float]]]:
        torch.manual_seed(0)
        network = build_classifier(section, len(dataset.classes))
        kept, held_out = dataset.samples[3:], dataset.samples[:3]
        examples = TaggedExamples(kept, held_out, dataset.classes, SETTINGS, 0, fill_of(network))
        training = ClassifierTraining(network, SETTINGS.optimizer, SETTINGS.decay_power)
        return training, _fit(tmp_path / str(devices), training, examples, devices, 2)[0]

    (one, figures), (two, others) = train(1), train(2)
    assert {"loss", "f1", "map"} <= figures[0].keys()
    _assert_equal(one, two, figures, others)


@pytest.mark.slow
def test_two_devices_learn_sipe_as_one_does(photos: Path, tmp_path: Path) -> None:
    dataset = load_dataset(photos, "all")

    def train(devices: int) -> tuple[Any, list[dict[str, float]]]:
        torch.manual_seed(0)
        network = build_classifier(SETTINGS.backbone, len(dataset.classes))
        sides = Sides(network.backbone.stages)
        kept, held_out = dataset.samples[3:], dataset.samples[:3]
        fill = fill_of(network)
        examples = TaggedExamples(kept, held_out, dataset.classes, SETTINGS, 0, fill, covered=True)
        training = SipeTraining(network, sides, SETTINGS.optimizer, SETTINGS.decay_power)
        return training, _fit(tmp_path / str(devices), training, examples, devices, 2)[0]

    (one, figures), (two, others) = train(1), train(2)
    assert {"loss", "tags", "consistency"} <= figures[0].keys()
    _assert_equal(one, two, figures, others)


class _Unnormalized(SegmentationTraining):
    def training_step(self, batch: Any, index: int) -> Any:
        self.network.eval()
        return super().training_step(batch, index)


@pytest.mark.slow
def test_two_devices_learn_a_segmenter_as_one_does(photos: Path, tmp_path: Path) -> None:
    """Without what a CPU's processes don't share or draw alike: batch statistics and dropout."""
    dataset = load_dataset(photos, "all")
    pairs = mask_pairs(dataset.samples, [photos / "SegmentationClass"])

    def train(devices: int) -> tuple[Any, list[dict[str, float]]]:
        torch.manual_seed(0)
        network = build_segmenter(SETTINGS.backbone, len(dataset.classes))
        assert isinstance(network, Segmenter)
        examples = MaskedExamples(pairs, pairs, SETTINGS, 0, fill_of(network))
        training = _Unnormalized(network, SETTINGS.optimizer, SETTINGS.decay_power)
        return training, _fit(tmp_path / str(devices), training, examples, devices, 2)[0]

    (one, figures), (two, others) = train(1), train(2)
    _assert_equal(one, two, figures, others)


def test_devices_share_the_statistics_that_are_learned_and_no_others() -> None:
    network = build_segmenter(SETTINGS.backbone, 3)
    synchronize_statistics(network)
    kinds = {
        name: type(layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    }
    shared = {name for name, kind in kinds.items() if kind is nn.SyncBatchNorm}
    assert shared == {name for name in kinds if not name.startswith("backbone.")} != set()
    assert len(shared) < len(kinds)
