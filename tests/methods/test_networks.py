import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tiny import EVERY_KIND, IRN, NETWORK, SEGMENT, SGD, tiny_recipe
from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.methods import networks
from weakseg.methods.base import Photos
from weakseg.methods.classifier import Classifier
from weakseg.methods.networks import (
    build_classifier,
    build_irnet,
    check_memory,
    read_irnet,
    write_irnet,
)
from weakseg.methods.settings import BackboneSection, PhotoTraining
from weakseg.networks.footprint import training_bytes

CPU = torch.device("cpu")


def _photos(count: int) -> Photos:
    return Photos(("a",), (Sample("0", Path("0.jpg"), ("a",), None),) * count, ("a",), Balance())


@pytest.mark.parametrize("name", ["classify", "taught", "irnet", "segmenter"])
def test_a_training_that_memory_has_no_room_for_is_refused_at_the_start(name: str) -> None:
    steps = {"classify": {}, "taught": EVERY_KIND["taught"], **IRN, **SEGMENT}
    steps[name] = {**steps[name], "crop": 4096, "batch_size": 100_000}
    step = next(step for step in tiny_recipe(**steps).build(Path()) if step.name == name)
    assert step.kind.check
    with pytest.raises(
        WeaksegError,
        match=rf"{name}: a step with 90000 crops of 4096 pixels at a time",
    ) as caught:
        step.kind.check(step, _photos(90_000), CPU)
    assert str(caught.value).endswith(
        f": raise {name}.accumulate (now 1), or lower {name}.batch_size (now 100000) or "
        f"{name}.crop (now 4096)."
    )
    step.kind.check(step, _photos(1), CPU)  # of which no batch has more


@pytest.mark.parametrize(
    ("accumulate", "message"),
    [(2, "with 32 crops"), (4, None)],
)
def test_memory_is_that_of_a_part(
    monkeypatch: pytest.MonkeyPatch, accumulate: int, message: str | None
) -> None:
    settings = {**NETWORK, "crop": 512, "batch_size": 64, "accumulate": accumulate}
    training = PhotoTraining.model_validate(settings)
    network = build_classifier(training.backbone, 1)
    wanted = training_bytes(network, 16, 512)
    monkeypatch.setattr(networks, "memory_here", lambda: wanted)
    with pytest.raises(WeaksegError, match=message) if message else nullcontext():
        check_memory("classify", network, training, 64, CPU)


def test_a_training_on_kept_features_has_its_batch_alone_to_lower() -> None:
    training = Classifier.model_validate({"epochs": 1, "batch_size": 4, "optimizer": SGD})
    assert training.less_memory("classify") == "lower classify.batch_size (now 4)"


def test_16_bits_take_half(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**NETWORK, "crop": 512, "batch_size": 64, "precision": "bf16-mixed"}
    training = PhotoTraining.model_validate(settings)
    network = build_classifier(training.backbone, 1)
    wanted = training_bytes(network, 64, 512)
    monkeypatch.setattr(networks, "memory_here", lambda: wanted // 2)
    check_memory("classify", network, training, 64, CPU)
    monkeypatch.setattr(networks, "memory_here", lambda: wanted // 2 - 1)
    with pytest.raises(WeaksegError, match="classify: a step with 64 crops of 512 pixels"):
        check_memory("classify", network, training, 64, CPU)


def test_a_file_of_a_few_kilobytes_names_no_network_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    section = BackboneSection(name="test_efficientnet", weights="none")
    write_irnet(path, build_irnet(section), section)
    with safetensors.safe_open(path, "pt") as file:
        made_of = json.loads(file.metadata()["made_of"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    made_of["backbone"]["name"] = "vit_giant_patch14_dinov2"
    safetensors.torch.save_file(tensors, path, {"made_of": json.dumps(made_of)})
    with pytest.raises(WeaksegError, match=r"dinov2' has 1,13\d,\d+,\d+ weights, and the file"):
        read_irnet(path, CPU)
