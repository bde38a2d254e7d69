from pathlib import Path

import pytest
import safetensors.torch
import torch

from weakseg.data.dataset import Sample
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.training.optimizers import SGD, AdamW
from weakseg.training.pooled import PooledPhotos


@pytest.fixture
def network() -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), classes=3).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("head_convolution", [True, False])
def test_a_logit_is_the_mean_of_its_map(head_convolution: bool) -> None:
    backbone = Backbone("test_efficientnet", weights="none", head_convolution=head_convolution)
    network = CamClassifier(backbone, classes=3).eval()
    torch.nn.init.normal_(network.head.weight)
    images = torch.rand(2, 3, 65, 97)
    maps = network.class_maps(images).maps
    torch.testing.assert_close(network(images), maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(images), network.classify(network.pool(images)))


def test_a_new_head_knows_nothing() -> None:
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), classes=3)
    assert not network(torch.rand(1, 3, 32, 32)).any()


def test_pooled_photos_are_drawn_by_seed_and_epoch(tmp_path: Path) -> None:
    samples = [Sample(str(i), Path(f"{i}.jpg"), ("a",) if i % 2 else (), None) for i in range(8)]
    for i in range(8):
        views = torch.tensor([[i, 0.0], [i, 1.0]])
        safetensors.torch.save_file({"pooled": views}, tmp_path / f"{i}.safetensors")

    def shown(epoch: int | None, seed: int = 0) -> list[tuple[float, float, float]]:
        photos = PooledPhotos(samples, ("a",), tmp_path, seed, epoch)
        return [(*features.tolist(), *tags.tolist()) for features, tags in photos]

    assert shown(None) == [(i, 0, i % 2) for i in range(8)]
    for epoch in range(3):
        drawn = shown(epoch)
        assert drawn == shown(epoch)
        assert sorted(photo for photo, _, _ in drawn) == list(range(8))
        assert all(tag == photo % 2 for photo, _, tag in drawn)
    assert shown(0) != shown(1) != shown(0, seed=1)
    assert {mirrored for epoch in range(3) for _, mirrored, _ in shown(epoch)} == {0, 1}


def test_optimizers_have_a_rate_for_each_part_and_leave_out_what_is_frozen(
    network: CamClassifier,
) -> None:
    parts = network.backbone.parameters, network.head.parameters
    sgd = SGD("sgd", lr=0.1, head_lr=1.0, momentum=0.0, weight_decay=1e-4)
    optimizer = sgd.build(*(part() for part in parts))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    assert all(group["momentum"] == 0 for group in optimizer.param_groups)
    assert all(group["weight_decay"] == 1e-4 for group in optimizer.param_groups)
    network.backbone.requires_grad_(False)
    adamw = AdamW("adamw", lr=0.1, head_lr=1.0, weight_decay=0.0)
    assert [g["lr"] for g in adamw.build(*(part() for part in parts)).param_groups] == [1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"head_lr": -1.0}, "head_lr is -1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0; expected 0 <= momentum < 1"),
    ],
)
def test_optimizers_name_a_value_out_of_range(values: dict, message: str) -> None:
    good = {"lr": 0.1, "head_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    with pytest.raises(ValueError, match=message):
        SGD("sgd", **{**good, **values})
