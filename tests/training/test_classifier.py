from pathlib import Path
from typing import Any

import lightning as L
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from weakseg.data.dataset import Sample
from weakseg.names import Head
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import UNKNOWN, CamClassifier, multi_label_loss
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.features import KeptFeatures
from weakseg.training.optimizers import SGD, Adam, AdamW


def convolutions(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.fixture
def network() -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), classes=3).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("head", ["linear", "extra_convolutions"])
@pytest.mark.parametrize("head_convolution", [True, False])
def test_a_logit_is_the_mean_of_its_map(head_convolution: bool, head: Head) -> None:
    backbone = Backbone("test_efficientnet", weights="none", head_convolution=head_convolution)
    network = CamClassifier(backbone, classes=3, head=head).eval()
    torch.nn.init.normal_(network.head.weight)
    images = torch.rand(2, 3, 65, 97)
    maps = network.class_maps(images).maps
    torch.testing.assert_close(network(images), maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(images), network.classify(network.pool(images)))


def test_a_new_head_knows_nothing() -> None:
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), classes=3)
    assert not network(torch.rand(1, 3, 32, 32)).any()


def test_three_extra_convolutions_stand_before_the_last() -> None:
    backbone = Backbone("test_efficientnet", weights="none", frozen_stages=-1)
    network = CamClassifier(backbone, classes=3, head="extra_convolutions")
    sizes = [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions(network.extra)]
    assert sizes == [(backbone.final.channels, 512, 3), (512, 512, 3), (512, 512, 3)]
    assert network.head.in_channels == 512
    for convolution in (*convolutions(network.extra), network.head):
        assert convolution.weight.std().item() == pytest.approx(0.01, rel=0.1)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert {id(p) for p in network.new_parameters()} == {id(p) for p in trained}
    assert len(trained) == 7


def test_extra_convolutions_learn() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none", frozen_stages=-1)
    network = CamClassifier(backbone, classes=2, head="extra_convolutions")
    optimizer = torch.optim.Adam(network.new_parameters(), 1e-3)
    images, tags = torch.rand(2, 3, 1, 1).expand(2, 3, 32, 32), torch.eye(2)
    losses = []
    for _ in range(5):
        losses.append(multi_label_loss(network(images), tags))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.any() for p in network.new_parameters())


def test_the_loss_is_the_binary_cross_entropy_of_each_output() -> None:
    logits, tags = torch.randn(5, 7) * 4, torch.randint(0, 2, (5, 7))
    expected = F.binary_cross_entropy_with_logits(logits, tags.float())
    torch.testing.assert_close(multi_label_loss(logits, tags), expected)


def test_what_is_unknown_has_no_gradient_and_changes_no_other() -> None:
    tags = torch.tensor([[1.0, 0.0, UNKNOWN], [UNKNOWN, 1.0, 0.0]])
    known = tags != UNKNOWN

    def gradient(tags: torch.Tensor) -> torch.Tensor:
        logits = torch.tensor([[0.5, -1.0, 3.0], [-2.0, 0.1, 0.7]], requires_grad=True)
        multi_label_loss(logits, tags).backward()
        assert logits.grad is not None
        return logits.grad

    assert not gradient(tags)[~known].any()
    for value in (0.0, 1.0):
        filled = torch.where(known, tags, torch.tensor(value))
        torch.testing.assert_close(gradient(tags)[known], gradient(filled)[known])
        assert gradient(filled)[~known].all()


@pytest.mark.parametrize("classes", [1, 3])
def test_what_is_unknown_is_not_judged(classes: int) -> None:
    backbone = Backbone("test_efficientnet", weights="none")
    network = CamClassifier(backbone, classes)
    network.head.weight.data[:, 0, 0, 0] = 1.0
    features = torch.zeros(6, backbone.final.channels)
    features[:, 0] = torch.tensor([3.0, 3.0, -3.0, -3.0, 3.0, -3.0])
    right = [1.0, 1.0, 0.0, 0.0]
    figures = {}
    for name, last in {"wrong": [0.0, 1.0], "unknown": [UNKNOWN, UNKNOWN]}.items():
        tags = torch.tensor([*right, *last])[:, None].expand(6, classes)
        settings = SGD("sgd", lr=0.1, head_lr=0.1, momentum=0.0, weight_decay=0.0)
        training = ClassifierTraining(network, settings, decay_power=0.0, kept=True)
        trainer = L.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        batches = DataLoader(TensorDataset(features, tags), batch_size=4)
        figures[name] = trainer.validate(training, batches, verbose=False)[0]
        known = [tag for tag in (*right, *last) if tag != UNKNOWN]
        assert training.per_class["base_rate"] == [sum(known) / len(known)] * classes
    assert figures["unknown"] == {"f1": 1.0, "map": 1.0}
    assert figures["wrong"]["f1"] < 1 and figures["wrong"]["map"] < 1


def test_pooled_photos_are_drawn_by_seed_and_epoch(tmp_path: Path) -> None:
    samples = [Sample(str(i), Path(f"{i}.jpg"), ("a",) if i % 2 else (), None) for i in range(8)]
    for i in range(8):
        views = torch.tensor([[i, 0.0], [i, 1.0]])
        safetensors.torch.save_file({"pooled": views}, tmp_path / f"{i}.safetensors")

    def shown(epoch: int | None, seed: int = 0) -> list[tuple[float, float, float]]:
        photos = KeptFeatures(samples, ("a",), tmp_path, "pooled", seed, epoch)
        examples = DataLoader(photos, batch_size=None)
        return [(*features.tolist(), *tags.tolist()) for features, tags in examples]

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
    rates = {"lr": 1e-4, "head_lr": 1e-3, "weight_decay": 1e-5}
    for settings, kind in (
        (Adam("adam", **rates), torch.optim.Adam),
        (AdamW("adamw", **rates), torch.optim.AdamW),
    ):
        built = settings.build(*(part() for part in parts))
        assert type(built) is kind
        assert [(g["lr"], g["weight_decay"]) for g in built.param_groups] == [(1e-3, 1e-5)]
    adamw = AdamW("adamw", lr=0.1, head_lr=1.0, weight_decay=0.0)
    assert [g["lr"] for g in adamw.build(*(part() for part in parts)).param_groups] == [1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, r"lr\n.*=0.0,"),
        ({"lr": 1e38}, r"lr\n.* less than or equal to 1000 .*=1e\+38,"),
        ({"head_lr": float("inf")}, r"head_lr\n.*=inf,"),
        ({"weight_decay": float("nan")}, r"weight_decay\n.*=nan,"),
        ({"head_lr": -1.0}, r"head_lr\n.*=-1.0,"),
        ({"weight_decay": -1.0}, r"weight_decay\n.*=-1.0,"),
        ({"momentum": 1.0}, r"momentum\n.* less than 1 .*=1.0,"),
    ],
)
def test_optimizers_name_a_value_out_of_range(values: dict[str, Any], message: str) -> None:
    good = {"lr": 0.1, "head_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    with pytest.raises(ValueError, match=message):
        SGD("sgd", **{**good, **values})


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_never_judged(
    network: CamClassifier, number: float
) -> None:
    settings = SGD("sgd", lr=0.1, head_lr=0.1, momentum=0.0, weight_decay=0.0)
    training = ClassifierTraining(network, settings, decay_power=0.0, kept=True)
    features = torch.full((2, network.head.in_channels), number)
    with torch.no_grad():
        network.head.weight.fill_(1.0)
    with pytest.raises(FloatingPointError, match="epoch 1 leaves NaN or infinity in its outputs"):
        training.validation_step((features, torch.zeros(2, network.head.out_channels)), 0)
