from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from weakseg.data.dataset import Sample
from weakseg.networks.backbones import Backbone, Stage
from weakseg.networks.cam_classifier import UNKNOWN, CamClassifier, multi_label_loss
from weakseg.networks.sipe import Sides
from weakseg.training.augment import Augmentation, flip, strong
from weakseg.training.optimizers import SGD
from weakseg.training.photos import CoveredPhotos, TaggedPhotos
from weakseg.training.sipe import SipeTraining, sipe_losses

FILL = (0.1, 0.2, 0.3)


@pytest.fixture
def parts() -> tuple[CamClassifier, Sides]:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none", output_stride=16)
    network = CamClassifier(backbone, classes=3)
    torch.nn.init.normal_(network.head.weight)
    return network, Sides(backbone.stages)


def test_sides_of_resnet50_are_the_papers() -> None:
    stages = [Stage(2, 64), Stage(4, 256), Stage(8, 512), Stage(16, 1024), Stage(16, 2048)]
    sides = Sides(stages)
    assert sides.indices == (1, 2, 3, 4)
    sizes = [tuple(p.shape) for p in sides.parameters()]
    assert sizes == [(128, 256, 1, 1), (128, 512, 1, 1), (256, 1024, 1, 1), (256, 2048, 1, 1)]
    maps = [torch.rand(2, s.channels, 64 // s.stride, 64 // s.stride) for s in stages[1:]]
    features = sides(maps)
    assert features.shape == (2, 768, 4, 4)
    torch.testing.assert_close(features[:, 512:].norm(dim=1), torch.ones(2, 4, 4))


def test_a_backbone_of_two_stages_has_two_sides() -> None:
    sides = Sides([Stage(8, 3), Stage(16, 5)])
    features = sides([torch.rand(1, 3, 4, 6), torch.rand(1, 5, 2, 3)])
    assert sides.indices == (0, 1) and features.shape == (1, 512, 4, 6)


def test_normalized_levels_are_those_of_all_images_seen() -> None:
    torch.manual_seed(0)
    sides = Sides([Stage(8, 3), Stage(16, 5)], normalized=True)
    batches = [[3 + 2 * torch.randn(4, 3, 8, 8), torch.randn(4, 5, 4, 4) - 1] for _ in range(3)]
    for batch in batches:
        for level in sides.levels(batch):
            torch.testing.assert_close(level.mean((0, 2, 3)), torch.zeros(level.shape[1]))
    stages = [torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 5, 4, 4)]
    for index, level in enumerate(sides.eval().levels(stages)):
        seen = [batch[index] for batch in batches]
        mean = torch.stack([one.mean((0, 2, 3)) for one in seen]).mean(0)
        variance = torch.stack([one.var((0, 2, 3)) for one in seen]).mean(0)
        expected = (stages[index] - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        torch.testing.assert_close(level, expected.detach())
        assert not level.requires_grad


def naive_consistency(
    network: CamClassifier, sides: Sides, image: Tensor, tags: Tensor, covered: Tensor
) -> Tensor:
    """Of one image, row by row and cell by cell; the maps are all on one grid."""
    maps, stages = network.class_maps(image[None], [1, 2, 3, 4])
    features = sides(sides.levels(stages))[0]
    cells = [(y, x) for y in range(maps.shape[2]) for x in range(maps.shape[3])]
    inside = {(y, x): bool(covered[16 * y + 8, 16 * x + 8]) for y, x in cells}
    cams = [raw.clamp(min=0) / (raw.clamp(min=0).max() + 1e-5) for raw in maps[0]]
    cams = [1 - torch.stack(cams).amax(dim=0), *cams]
    own = [True, *(tag == 1 for tag in tags)]
    for row, cam in enumerate(cams):
        mask = torch.zeros_like(cam)
        for cell in cells:
            mask[cell] = float(own[row] and inside[cell])
        cams[row] = cam * mask
    deepest = F.normalize(stages[3][0], dim=0)
    chosen: dict[int, list[Tensor]] = {row: [] for row in range(len(cams))}
    for y, x in cells:
        region = torch.einsum("d,dhw->hw", deepest[:, y, x], deepest).clamp(min=0)
        shares = []
        for row, cam in enumerate(cams):
            shared = (region * cam).sum()
            share = shared / (region.sum() + cam.sum() - shared)
            shares.append(share.item() * (0.5 if row == 0 else 1))
        row = int(np.argmax(shares))
        if own[row] and inside[y, x]:
            chosen[row].append(features[:, y, x])
    total = torch.zeros(())
    for row, cam in enumerate(cams):
        if not chosen[row]:
            total = total + cam.sum()
            continue
        prototype = torch.stack(chosen[row]).mean(dim=0)
        specific = F.cosine_similarity(features, prototype[:, None, None], dim=0).clamp(min=0)
        total = total + (cam - specific / (specific.max() + 1e-5)).abs().sum()
    return total / (len(cams) * len(cells))


def test_losses_agree_with_going_cell_by_cell(parts: tuple[CamClassifier, Sides]) -> None:
    network, sides = parts
    images = torch.rand(2, 3, 64, 64)
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, UNKNOWN]])
    covered = torch.ones(2, 64, 64, dtype=torch.bool)
    covered[1, :, 40:] = False
    losses = sipe_losses(network, sides, images, tags, covered)
    torch.testing.assert_close(losses.tags, multi_label_loss(network(images), tags))
    naive = [
        naive_consistency(network, sides, *one) for one in zip(images, tags, covered, strict=True)
    ]
    expected = torch.stack(naive).mean()
    torch.testing.assert_close(losses.consistency, expected, atol=1e-5, rtol=1e-4)
    learned = [network.head.weight, *sides.parameters()]
    gradients = torch.autograd.grad(losses.consistency, learned)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, learned), strict=True):
        assert found.any()
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def halves() -> Iterator[tuple[Tensor, Tensor]]:
    """Photos of a bright square in a dark corner; its place says nothing of the tag."""
    rng = np.random.default_rng(0)
    for number in range(8):
        image = torch.full((3, 64, 64), 0.1)
        top, left = rng.integers(0, 32, 2)
        image[number % 2, top : top + 32, left : left + 32] = 0.9
        yield image, torch.eye(2)[number % 2]


def test_training_lowers_both_losses_and_trains_no_frozen_backbone() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none", frozen_stages=-1)
    network = CamClassifier(backbone, classes=2)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    sides = Sides(backbone.stages)
    start = [p.clone() for p in sides.parameters()]
    settings = SGD("sgd", lr=0.1, head_lr=0.5, momentum=0.0, weight_decay=0.0)
    training = SipeTraining(network, sides, settings, decay_power=0.9, gradient_norm=0.5)
    images, tags = (torch.stack(part) for part in zip(*halves(), strict=True))
    examples = TensorDataset(images, tags, torch.ones(8, 64, 64, dtype=torch.bool))
    seen: list[float] = []

    class Norms(L.Callback):
        def on_train_batch_end(self, *given: object) -> None:
            gradients = [p.grad for p in training.parameters() if p.grad is not None]
            seen.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    epochs: list[dict[str, float]] = []

    class Figures(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            epochs.append({name: float(v) for name, v in trainer.callback_metrics.items()})

    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=20,
        callbacks=[Norms(), Figures()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(training, DataLoader(examples, batch_size=4))
    assert set(epochs[0]) == {"loss", "tags", "consistency"}
    assert all(epochs[-1][name] < epochs[0][name] for name in epochs[0])
    assert 0 < max(seen) <= 0.5 + 1e-5
    assert all((value == before[key]).all() for key, value in backbone.state_dict().items())
    assert all((p != q).any() for p, q in zip(sides.parameters(), start, strict=True))


@pytest.mark.parametrize("augment", [flip, strong])
def test_covered_pixels_are_those_of_the_photo(tmp_path: Path, augment: Augmentation) -> None:
    Image.new("RGB", (60, 30), (255, 255, 255)).save(tmp_path / "a.png")
    samples = [Sample("a", tmp_path / "a.png", ("x",), None)]
    arguments = (samples, ("x", "y"), (40, 80), 48, FILL, 0)
    partly = 0
    for epoch in range(12):
        image, tags, covered = CoveredPhotos(*arguments, epoch, augment)[0]
        plain, same = TaggedPhotos(*arguments, epoch, augment)[0]
        assert (image == plain).all() and (tags == same).all()
        assert covered.dtype == torch.bool and covered.shape == (48, 48)
        bright = (image - torch.tensor(FILL)[:, None, None]).abs().amax(dim=0) > 0.4
        assert (bright == covered).float().mean() > (0.9 if augment is strong else 0.9999)
        partly += bool(covered.any() and not covered.all())
    assert partly
