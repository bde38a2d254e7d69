"""Networks as ONNX files: what they give, what they say of themselves, what runs them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import weakseg
from tiny import SEGMENT, Lines, tiny_recipe
from weakseg.data.masks import read_mask
from weakseg.engine import predict
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.export.onnx import export_onnx
from weakseg.methods.networks import (
    SegmenterCard,
    build_segmenter,
    read_segmenter,
    write_segmenter,
)
from weakseg.methods.segment import SegmentationModel, Views
from weakseg.methods.settings import BackboneSection
from weakseg.networks.pixel_head import PixelHeadShape
from weakseg.networks.segmenter import SegmentationNetwork
from weakseg.recipe import RECIPE, dump_recipe
from weakseg.segment.onnx import OnnxModel, read_card

SIZES = [(1, 1), (33, 17), (48, 64), (65, 97), (96, 31), (130, 129)]
CLASSES = ("cat", "dog", "käse")
CPU = torch.device("cpu")


def _write(path: Path, backbone: str, shape: PixelHeadShape | None = None) -> Path:
    section = BackboneSection(name=backbone, weights="none", output_stride=32 if shape else 16)
    torch.manual_seed(0)
    network = build_segmenter(section, len(CLASSES), shape)
    for name, values in network.state_dict().items():  # as training leaves them: none is 0 or 1
        if name.endswith(("running_var", "running_mean")):
            values += 0.1 * torch.rand_like(values)
    card = SegmenterCard(section, CLASSES, 128, "32-true", shape)
    write_segmenter(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="module", params=["efficientnet_lite0", "resnet18"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    return _write(folder / "segmenter.safetensors", request.param)


@pytest.fixture(scope="module")
def exported(network: Path) -> Path:
    out = network.with_name("model.onnx")
    export_onnx(network, out)
    return out


def test_any_number_and_size_of_images_gives_what_pytorch_gives(
    network: Path, exported: Path
) -> None:
    true: SegmentationNetwork = read_segmenter(network, CPU)[0]
    model = OnnxModel(exported)
    generator = torch.Generator().manual_seed(1)
    for count, (height, width) in enumerate(SIZES, start=1):
        images = torch.rand(min(count, 3), 3, height, width, generator=generator)
        with torch.inference_mode():
            expected = true(images).numpy()
        found = model.logits(images.numpy())
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert [path.name for path in exported.parent.iterdir() if "onnx" in path.name] == [
        "model.onnx"
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network's file, and the ONNX file of it."""
    folder = tmp_path_factory.mktemp("one")
    network = _write(folder / "segmenter.safetensors", "test_efficientnet")
    export_onnx(network, folder / "model.onnx")
    return network, folder / "model.onnx"


def test_its_metadata_say_how_it_is_used(one: tuple[Path, Path]) -> None:
    card = read_card(one[1])
    assert card.classes == CLASSES
    assert card.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (card.input_range, card.channels, card.stride, card.long_side) == (
        (0, 1),
        "RGB",
        16,
        128,
    )
    assert (card.tta_scales, card.tta_flip) == ((0.5, 1, 2), True)


def _photos(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for height, width in (*SIZES, (200, 90)):  # the last is over the network's limit
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{height}x{width}.png")
    return folder


@pytest.mark.parametrize(("tta", "crf"), [(False, False), (False, True), (True, False)])
def test_predict_makes_the_same_masks_of_either_file(
    one: tuple[Path, Path], tmp_path: Path, tta: bool, crf: bool
) -> None:
    photos = _photos(tmp_path / "photos")
    for model in one:
        out = tmp_path / model.stem
        written = predict.run(
            model, [photos], out, InProcessExecutor(), Lines(), "cpu", tta, True, crf
        )
        assert written == len(SIZES) + 1
    true, found = (tmp_path / model.stem for model in one)
    assert sorted(p.name for p in true.iterdir()) == sorted(p.name for p in found.iterdir())
    assert (true / "classes.txt").read_text() == (found / "classes.txt").read_text()
    same = [read_mask(path) == read_mask(found / path.name) for path in sorted(true.glob("*.png"))]
    assert np.mean(np.concatenate([pixels.ravel() for pixels in same])) > 0.999


def test_views_are_averaged_as_pytorch_does(one: tuple[Path, Path]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    views = Views(scales=(0.5, 1.0, 1.7), flip=True)
    (expected,) = SegmentationModel(one[0], CPU).probabilities([photo], views)
    found = OnnxModel(one[1]).probabilities(photo, views.scales, views.flip)
    np.testing.assert_allclose(found, expected, atol=1e-4)


PREDICTED = """
import sys
for name in ("torch", "timm", "lightning", "segmentation_models_pytorch", "onnx"):
    sys.modules[name] = None
from weakseg.cli import main
sys.argv[1:] = ["predict", *sys.argv[1:]]
main()
"""


def test_the_command_predicts_without_pytorch(one: tuple[Path, Path], tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos")
    call = [one[1], photos, "--out", tmp_path / "masks", "--tta", "--crf", "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", PREDICTED, *map(str, call)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert f'"masks": {len(SIZES) + 1}' in ran.stdout
    assert read_mask(tmp_path / "masks" / "65x97.png").shape == (65, 97)


def test_a_gpu_is_refused(one: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="is run by ONNX Runtime, on the CPU"):
        weakseg.predict(one[1], [tmp_path], tmp_path / "out", device="cuda")


def test_what_is_no_exported_network_is_one_clear_line(
    one: tuple[Path, Path], tmp_path: Path
) -> None:
    import onnx

    photos = _photos(tmp_path / "photos")
    broken, foreign = tmp_path / "broken.onnx", tmp_path / "foreign.onnx"
    broken.write_bytes(one[1].read_bytes()[:1000])
    graph = onnx.load(one[1])
    del graph.metadata_props[:]
    onnx.save(graph, foreign)
    for file, said in ((broken, "is no ONNX file that can be used"), (foreign, "classes: Field")):
        with pytest.raises(WeaksegError, match=said) as caught:
            predict.run(file, [photos], tmp_path / "out", InProcessExecutor(), Lines(), "cpu")
        assert "\n" not in str(caught.value)


def test_a_pixel_head_and_a_name_that_no_network_has_are_refused(
    tmp_path: Path,
) -> None:
    head = _write(tmp_path / "head.safetensors", "test_efficientnet", PixelHeadShape((0,), 1, 8, 0))
    (tmp_path / RECIPE).write_text(dump_recipe(tiny_recipe(**SEGMENT)))
    with pytest.raises(WeaksegError, match="is a pixel head"):
        export_onnx(head, tmp_path / "model.onnx")
    with pytest.raises(WeaksegError, match=r"Unknown network of .* 'svm'"):
        export_onnx(tmp_path, tmp_path / "model.onnx", "svm")
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_that_gives_other_values_is_refused(
    one: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = OnnxModel.logits
    monkeypatch.setattr(OnnxModel, "logits", lambda self, images: logits(self, images) + 1)
    with pytest.raises(WeaksegError, match="gives other values than the network"):
        export_onnx(one[0], tmp_path / "model.onnx")
