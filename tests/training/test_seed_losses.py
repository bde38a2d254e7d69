import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from weakseg.data.dataset import Sample
from weakseg.data.masks import IGNORE, write_mask
from weakseg.refine.crf import dense_crf
from weakseg.refine.settings import CRFSettings
from weakseg.training.seed_losses import (
    Cells,
    boundary_loss,
    cells_of,
    dsrg_losses,
    expansion_loss,
    grow_seeds,
    refine,
    sec_losses,
    seeding_loss,
)
from weakseg.training.segmentation import MaskedPhotos, SeededPhotos

CRF = CRFSettings(1, 1, 4, 10, 5, iterations=3)


def _probabilities(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator)).softmax(dim=0)


def test_the_seeding_loss_is_the_mean_over_the_cells_that_have_a_seed() -> None:
    p, seeds = _probabilities(3, 2, 3), torch.tensor([[0, 255, 2], [255, 1, 255]])
    expected = -(math.log(p[0, 0, 0]) + math.log(p[2, 0, 2]) + math.log(p[1, 1, 1])) / 3
    assert seeding_loss(p, seeds).item() == pytest.approx(expected, rel=1e-5)
    assert seeding_loss(p, torch.full((2, 3), 255)) == 0


def _ranked(values: torch.Tensor, decay: float) -> float:
    ordered: list[float] = sorted(values.flatten().tolist(), reverse=True)
    weights = [decay**rank for rank in range(len(ordered))]
    return sum(w * v for w, v in zip(weights, ordered, strict=True)) / sum(weights)


@pytest.mark.parametrize("tags", [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, -1, -1]])
def test_the_expansion_loss_is_that_of_the_paper_on_its_grid(tags: list[int]) -> None:
    p = _probabilities(5, 41, 41)
    there = [-math.log(_ranked(p[c + 1], 0.996)) for c, tag in enumerate(tags) if tag == 1]
    absent = [-math.log(1 - p[c + 1].max()) for c, tag in enumerate(tags) if tag == 0]
    expected = -math.log(_ranked(p[0], 0.999))
    expected += sum(part for terms in (there, absent) for part in [sum(terms) / max(1, len(terms))])
    assert expansion_loss(p, torch.tensor(tags)).item() == pytest.approx(expected, rel=1e-4)


def test_the_boundary_loss_is_the_divergence_from_what_the_crf_makes() -> None:
    p, q = _probabilities(3, 2, 2), _probabilities(3, 2, 2, seed=1)
    cells = [float(q[place]) * math.log(q[place] / p[place]) for place in np.ndindex(3, 2, 2)]
    assert boundary_loss(p, q).item() == pytest.approx(sum(cells) / 4, rel=1e-5)
    assert boundary_loss(p, p) == 0


def _grown_slowly(
    seeds: NDArray[np.uint8], p: NDArray[np.float32], present: list[int], fg: float, bg: float
) -> NDArray[np.uint8]:
    """One region after the other, cell by cell."""
    height, width = seeds.shape
    label = np.full(seeds.shape, IGNORE, np.uint8)
    for y, x in np.ndindex(seeds.shape):
        best = max(present, key=lambda c: p[c, y, x])
        if p[best, y, x] > (bg if best == 0 else fg):
            label[y, x] = best
        elif seeds[y, x] in present:
            label[y, x] = seeds[y, x]
    grown = seeds.copy()
    for start in np.ndindex(seeds.shape):
        if seeds[start] == IGNORE or label[start] != seeds[start]:
            continue
        reached, ends = {start}, [start]
        while ends:
            y, x = ends.pop()
            for cell in np.ndindex(height, width):
                near = max(abs(cell[0] - y), abs(cell[1] - x)) == 1
                if near and cell not in reached and label[cell] == seeds[start]:
                    reached.add(cell)
                    ends.append(cell)
        for cell in reached:
            if seeds[cell] == IGNORE:
                grown[cell] = seeds[start]
    return grown


@settings(max_examples=40, deadline=None)
@given(
    draw=st.integers(0, 2**32 - 1),
    present=st.sampled_from([[0], [0, 2], [0, 1, 3], [0, 1, 2, 3]]),
    fg=st.sampled_from([0.3, 0.6, 0.9]),
    bg=st.sampled_from([0.3, 0.6, 0.9]),
)
def test_seeds_grow_as_a_flood_does_never_shrink_and_take_no_absent_class(
    draw: int, present: list[int], fg: float, bg: float
) -> None:
    rng = np.random.default_rng(draw)
    seeds = rng.choice(np.array([0, 1, 2, 3, IGNORE, IGNORE], np.uint8), (4, 5))
    logits = rng.integers(-4, 5, (4, 4, 5)).astype(np.float32)
    p = torch.from_numpy(logits).softmax(dim=0).numpy()
    grown = grow_seeds(seeds, p, np.array(present), fg, bg)
    np.testing.assert_array_equal(grown, _grown_slowly(seeds, p, present, fg, bg))
    given_seeds = seeds != IGNORE
    assert (grown[given_seeds] == seeds[given_seeds]).all()
    assert set(grown[~given_seeds]) <= {*present, IGNORE}


def _cells(tags: list[float]) -> Cells:
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    seeds = torch.full((4, 6), 255)
    seeds[0, 0], seeds[3, 5] = 0, 1
    return Cells(_probabilities(3, 4, 6), photo, seeds, torch.tensor(tags))


def test_sec_is_the_sum_of_three_losses() -> None:
    cells = _cells([1.0, 0.0])
    (refined,) = refine([cells], CRF)
    assert sec_losses(cells, refined) == {
        "seed": seeding_loss(cells.probabilities, cells.seeds),
        "expand": expansion_loss(cells.probabilities, cells.tags),
        "constrain": boundary_loss(cells.probabilities, refined),
    }


def test_dsrg_balances_background_and_the_classes_of_grown_seeds() -> None:
    cells = _cells([1.0, 0.0])
    logits = torch.zeros(3, 4, 6)
    logits[0, :, :4], logits[1, :, 4:] = 3, 3
    logits[2, 0, 1] = 5  # a class that the photo hasn't
    found = dsrg_losses(cells, logits.softmax(dim=0), foreground=0.5, background=0.6)
    grown = np.zeros((4, 6), np.uint8)
    grown[:, 4:] = 1
    grown[0, 1] = IGNORE
    for name, label in (("background", 0), ("foreground", 1)):
        terms = [
            -math.log(cells.probabilities[label, y, x]) for y, x in np.argwhere(grown == label)
        ]
        assert found[name].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert found["boundary"] == boundary_loss(cells.probabilities, logits.softmax(dim=0))
    stiff = dsrg_losses(cells, logits.softmax(dim=0), foreground=0.95, background=0.95)
    assert stiff["foreground"].item() == pytest.approx(-math.log(cells.probabilities[1, 3, 5]))


def test_the_crf_sees_the_photo_and_has_no_gradient() -> None:
    cells = _cells([1.0, 0.0])
    cells.probabilities.requires_grad = True
    (refined,) = refine([cells], CRF)
    p = cells.probabilities.detach()
    expected = dense_crf(cells.photo, -p.log().numpy(), CRF) + np.float32(1e-4)
    np.testing.assert_allclose(refined, expected / expected.sum(axis=0), rtol=1e-4)
    assert not refined.requires_grad
    other = cells._replace(photo=np.zeros_like(cells.photo))
    assert not torch.equal(refine([other], CRF)[0], refined)
    sum(sec_losses(cells, refined).values()).backward()  # type: ignore[union-attr]
    assert cells.probabilities.grad is not None and cells.probabilities.grad.any()


def test_cells_are_what_a_photo_covers_of_its_square() -> None:
    torch.manual_seed(0)
    logits, images = torch.randn(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    seeds, tags = torch.randint(0, 3, (2, 32, 32)), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    covered = torch.zeros(2, 32, 32, dtype=torch.bool)
    covered[0] = True
    covered[1, 8:17] = True  # nine rows: two rows of cells
    whole, part = cells_of(logits, images, seeds, tags, covered)
    assert whole.seeds.shape == (4, 4) and part.seeds.shape == (2, 4)
    for y, x in ((0, 0), (1, 3)):
        rows, columns = slice(8 * y + 8, 8 * y + 16), slice(8 * x, 8 * x + 8)
        odds = logits[1, :, rows, columns].mean(dim=(1, 2)).softmax(dim=0) + 1e-4
        torch.testing.assert_close(part.probabilities[:, y, x], odds / odds.sum())
        colour = images[1, :, rows, columns].mean(dim=(1, 2)) * 255
        assert np.abs(part.photo[y, x] - colour.numpy()).max() <= 0.51
        assert part.seeds[y, x] == seeds[1, 8 * y + 12, 8 * x + 4]
    assert torch.equal(part.tags, tags[1])


def test_a_side_that_is_no_multiple_of_eight_has_a_cell_more() -> None:
    covered = torch.ones(1, 41, 41, dtype=torch.bool)
    seeds, images = torch.zeros(1, 41, 41, dtype=torch.long), torch.rand(1, 3, 41, 41)
    (cells,) = cells_of(torch.randn(1, 2, 41, 41), images, seeds, torch.ones(1, 1), covered)
    assert cells.photo.shape == (6, 6, 3)


def test_examples_have_their_photos_tags_and_where_they_lie(tmp_path: Path) -> None:
    samples, pairs = [], []
    for number, tag in enumerate(("cat", "dog", "cow")):
        photo, mask = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        Image.fromarray(np.full((20, 40, 3), 50 * number, np.uint8)).save(photo)
        write_mask(mask, np.full((20, 40), number, np.uint8))
        doubtful = ("cow",) if tag == "cat" else ()
        samples.append(Sample(str(number), photo, (tag,), None, doubtful=doubtful))
        pairs.append((photo, (mask,)))
    common = (pairs, (32, 48), 48, (0.5, 0.5, 0.5), "flip", 0, 1)
    seeded = SeededPhotos(samples, ("cat", "cow", "dog"), *common)
    expected = {0: [1.0, -1.0, 0.0], 1: [0.0, 0.0, 1.0], 2: [0.0, 1.0, 0.0]}
    masked = MaskedPhotos(*common)  # type: ignore[arg-type]
    seen = set()
    for index in range(len(masked)):
        image, seeds, tags, covered = seeded[index]
        assert all(map(torch.equal, (image, seeds), masked[index]))
        assert torch.equal(covered, seeds != IGNORE)  # these masks know every pixel
        number = int(seeds.min())
        seen.add(number)
        assert tags.tolist() == expected[number]
    assert seen == {0, 1, 2}
