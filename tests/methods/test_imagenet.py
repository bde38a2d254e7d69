"""ImageNet's own classifier as a step."""

import json
from pathlib import Path

import pytest
import timm
import torch

from tiny import Start, tiny_recipe
from weakseg.data.balance import Balance
from weakseg.data.dataset import load_dataset
from weakseg.data.imagenet import match_tag
from weakseg.errors import WeaksegError
from weakseg.methods.base import Photos
from weakseg.methods.classifier import CLASSIFIER
from weakseg.methods.networks import build_classifier, read_classifier
from weakseg.methods.settings import BackboneSection
from weakseg.networks.weights import read_packaged, read_rows
from weakseg.recipe import Recipe

NAME = "efficientnet_lite0"
KNOWS = {"kind": "imagenet", "backbone": {"name": NAME}}


def test_the_network_gives_what_timms_own_gives(tmp_path: Path) -> None:
    """The rows stand behind the map that they were trained behind."""
    whole = timm.create_model(f"tf_{NAME}").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), read_packaged(NAME).values(), strict=True)))
    network = build_classifier(BackboneSection(name=NAME), 2).eval()
    network.head.weight.data.copy_(read_rows(NAME)[[281, 5], :, None, None])
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = whole((image - 0.5) / 0.5)[0] - whole.classifier.bias
        expected = logits[[281, 5]] - logits.mean()
        torch.testing.assert_close(network(image)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    steps = dict.fromkeys(("classify", "cam+crf", "seed"))
    return tiny_recipe(**steps, imagenet=KNOWS, localize={"of": "imagenet"})


def test_a_run_needs_no_training_and_names_its_outputs_by_the_classes(
    photos: Path, start: Start, tmp_path: Path, recipe: Recipe
) -> None:
    lines = start(photos, tmp_path, recipe)
    network = read_classifier(tmp_path / "imagenet" / CLASSIFIER, torch.device("cpu"))
    classes = load_dataset(photos).classes
    matches = {name: match for name in classes if (match := match_tag(name))}
    expected = [(name, output) for name, match in matches.items() for output in match.outputs]
    assert network.classes == tuple(name for name, _ in expected)
    rows = read_rows(NAME)[[output for _, output in expected]]
    assert torch.equal(network.head.weight[..., 0, 0], rows)
    written = json.loads((tmp_path / "imagenet" / "matches.json").read_text())
    assert written == {name: list(match.names) for name, match in matches.items()}
    assert f"imagenet: {matches['cat']}" in lines.said
    assert not any(line.startswith("tags: ") for line in lines.said)  # nothing learns them
    assessed = json.loads((tmp_path / "assessment.json").read_text())["classes"]
    assert all(entry["average_precision"] is None for entry in assessed)
    assert "imagenet: up to date" in start(photos, tmp_path, recipe).said


def test_classes_that_imagenet_lacks_are_refused_before_anything_runs(
    photos: Path, tmp_path: Path, recipe: Recipe
) -> None:
    step, samples = recipe.build(tmp_path)[0], load_dataset(photos).samples
    assert step.kind.check
    seen = Photos(("cat", "gizmo"), samples, ("cat", "gizmo"), Balance())
    with pytest.raises(WeaksegError, match="no class for 'gizmo'"):
        step.kind.check(step, seen, torch.device("cpu"))


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ({"name": "resnet50"}, "only efficientnet_lite0"),
        ({"name": NAME, "weights": "none"}, "weights: imagenet"),
        ({"name": NAME, "head_convolution": False}, "head_convolution: true"),
    ],
)
def test_a_backbone_without_the_classifier_is_refused(
    backbone: dict[str, object], reason: str
) -> None:
    with pytest.raises(WeaksegError, match=reason):
        tiny_recipe(imagenet={"kind": "imagenet", "backbone": backbone})


def test_what_is_not_trained_finds_no_missing_tags(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    steps = {"imagenet": KNOWS, "screen": {"kind": "missing_tags", "of": "imagenet"}}
    with pytest.raises(WeaksegError, match="classifier alone, and imagenet is of kind imagenet"):
        start(photos, tmp_path, tiny_recipe(**steps))
