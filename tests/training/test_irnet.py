from collections.abc import Iterator

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from weakseg.networks.backbones import Backbone
from weakseg.networks.irnet import IRNet, Relations
from weakseg.refine.affinity import pair_directions, path_cells
from weakseg.training.irnet import (
    IRNetTraining,
    reduce_masks,
    relation_losses,
    set_mean_displacement,
)
from weakseg.training.optimizers import SGD

Cell = tuple[int, int]

SGD_FAST = SGD("sgd", lr=0.1, head_lr=0.1, momentum=0.9, weight_decay=0.0)


def pairs(height: int, width: int, radius: int) -> Iterator[tuple[Cell, Cell, list[Cell]]]:
    for direction in pair_directions(radius):
        for y in range(height - direction.dy):
            for x in range(max(0, -direction.dx), width - max(0, direction.dx)):
                path = [(y + dy, x + dx) for dy, dx in path_cells(direction)]
                yield (y, x), (y + direction.dy, x + direction.dx), path


def naive_losses(relations: Relations, masks: Tensor, radius: int) -> tuple[float, float]:
    """Pair by pair."""
    union: dict[str, list[Tensor]] = {"background": [], "foreground": [], "parted": []}
    error: dict[str, list[Tensor]] = {"background": [], "foreground": []}
    for image, logits in enumerate(relations.boundary[:, 0].detach().double().sigmoid()):
        mask, field = masks[image], relations.displacement[image].detach().double()
        height, width = mask.shape
        for i, j, path in pairs(height, width, radius):
            if 255 in (mask[i], mask[j]):
                continue
            affinity = 1 - max(logits[cell] for cell in path)
            difference = field[:, i[0], i[1]] - field[:, j[0], j[1]]
            if mask[i] != mask[j]:
                union["parted"].append(-torch.log(1 - affinity))
                continue
            kind = "foreground" if mask[i] else "background"
            union[kind].append(-torch.log(affinity))
            between = torch.tensor(j) - torch.tensor(i) if mask[i] else torch.zeros(2)
            error[kind].append((difference - between).abs().sum() / 2)

    def mean(values: list[Tensor]) -> float:
        return float(sum(values) / max(1, len(values)))

    alike = (mean(union["background"]) + mean(union["foreground"])) / 2
    displacement = (mean(error["background"]) + mean(error["foreground"])) / 2
    return (alike + mean(union["parted"])) / 2, displacement


def random_relations(count: int, height: int, width: int) -> Relations:
    rng = torch.Generator().manual_seed(0)
    return Relations(
        torch.randn(count, 1, height, width, generator=rng, requires_grad=True),
        torch.randn(count, 2, height, width, generator=rng, requires_grad=True),
    )


MASKS = {
    "every kind of pair": torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1], [255, 2, 2, 0]]),
    "background alone": torch.zeros(3, 4, dtype=torch.long),
    "one class alone": torch.ones(3, 4, dtype=torch.long),
    "no two alike": torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
    "everything ignored": torch.full((3, 4), 255),
}


@pytest.mark.parametrize("name", MASKS)
def test_losses_agree_with_going_pair_by_pair(name: str) -> None:
    masks = torch.stack([MASKS[name], MASKS[name].flip(0)])
    relations = random_relations(2, 3, 4)
    losses = relation_losses(relations, masks, 4)
    assert torch.stack(losses).tolist() == pytest.approx(naive_losses(relations, masks, 4))
    torch.stack(losses).sum().backward()
    for given in relations:
        assert given.grad is not None and given.grad.isfinite().all()


def test_a_grid_without_pairs_has_no_loss() -> None:
    relations = random_relations(1, 1, 1)
    losses = relation_losses(relations, torch.zeros(1, 1, 1, dtype=torch.long), 10)
    torch.stack(losses).sum().backward()
    assert torch.stack(losses).tolist() == [0, 0]


def test_displacements_to_the_centre_have_no_loss() -> None:
    cells = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij"))
    towards = torch.tensor([3.0, 2.0]).view(2, 1, 1) - cells
    masks = torch.ones(1, 8, 9, dtype=torch.long)
    relations = Relations(torch.zeros(1, 1, 8, 9), towards.unsqueeze(0))
    assert relation_losses(relations, masks, 5).displacement == 0


def test_masks_are_reduced_by_the_nearest_pixel() -> None:
    masks = torch.arange(64).view(1, 8, 8)
    assert reduce_masks(masks).tolist() == [[[18, 22], [50, 54]]]
    for side in (1, 5, 8, 13):
        assert set(reduce_masks(torch.full((1, side, side), 255)).flatten().tolist()) == {255}
        assert reduce_masks(torch.zeros(1, side, side)).shape[1] == (side - 1) // 4 + 1


def test_the_mean_displacement_becomes_zero() -> None:
    torch.manual_seed(0)
    network = IRNet(Backbone("test_efficientnet", weights="none"))
    batches = [torch.rand(2, 3, 40, 40), torch.rand(1, 3, 24, 64)]
    network.mean_displacement.fill_(7.0)
    set_mean_displacement(network, batches)
    assert not network.training and network.mean_displacement.any()
    with torch.inference_mode():
        means = [network(images).displacement.mean(dim=(2, 3)) for images in batches]
    torch.testing.assert_close(torch.cat(means).mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)


def halves(side: int) -> tuple[Tensor, Tensor]:
    """Photos of a dark and a bright half, and which half is which."""
    images, masks = torch.full((4, 3, side, side), 0.1), torch.zeros(4, side, side).long()
    for number, edge in enumerate((20, 28, 36, 44)):
        images[number, :, :, edge:] = 0.9
        masks[number, :, edge:] = 1
    return images, masks


def test_training_finds_the_boundary_between_two_regions() -> None:
    torch.manual_seed(0)
    network = IRNet(Backbone("test_efficientnet", weights="none", head_convolution=False))
    images, masks = halves(64)
    training = IRNetTraining(network, SGD_FAST, decay_power=0.9, radius=5)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=40,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(training, DataLoader(TensorDataset(images, masks), batch_size=4))
    assert set(trainer.callback_metrics) == {"loss", "affinity", "displacement"}
    set_mean_displacement(network, [images])
    with torch.inference_mode():
        boundary = network(images).boundary.sigmoid()[:, 0]
    for number, edge in enumerate((5, 7, 9, 11)):
        columns = boundary[number].mean(dim=0)
        assert columns[edge - 1 : edge + 1].max() > 0.8
        assert torch.cat([columns[: edge - 2], columns[edge + 2 :]]).max() < 0.4
