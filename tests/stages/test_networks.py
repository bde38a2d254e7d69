import pytest
import torch

from tiny import NETWORK, tiny_recipe
from weakseg.errors import WeaksegError
from weakseg.stages import networks
from weakseg.stages.networks import check_networks

CPU = torch.device("cpu")
SEGMENT = {**NETWORK, "masks": "cam"}


def test_a_training_that_memory_has_no_room_for_is_refused_at_the_start() -> None:
    recipe = tiny_recipe(segment={**SEGMENT, "crop": 4096, "batch_size": 100_000})
    with pytest.raises(
        WeaksegError, match=r"segment: a step with 90000 crops of 4096 pixels takes over \d{6}"
    ) as caught:
        check_networks(recipe, 90_000, CPU)
    assert "Lower segment.batch_size or segment.crop." in str(caught.value)
    check_networks(recipe, 1, CPU)  # of which no batch has more


def test_16_bits_take_half(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(classify={"crop": 512, "batch_size": 64, "precision": "bf16-mixed"})
    network = networks.build_classifier(recipe.backbone, 1)
    wanted = networks.training_bytes(network, 64, 512)
    monkeypatch.setattr(networks, "memory_here", lambda: wanted // 2)
    check_networks(recipe, 64, CPU)
    monkeypatch.setattr(networks, "memory_here", lambda: wanted // 2 - 1)
    with pytest.raises(WeaksegError, match="classify: a step with 64 crops of 512 pixels"):
        check_networks(recipe, 64, CPU)
