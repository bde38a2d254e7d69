import pickle
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from weakseg.errors import WeaksegError
from weakseg.networks.backbones import Backbone
from weakseg.networks.weights import read_tensors


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet")
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_packaged_weights_are_those_of_a_trained_network(name: str) -> None:
    backbone = Backbone(name, weights="imagenet")
    variances = [v for k, v in backbone.state_dict().items() if k.endswith("running_var")]
    assert variances
    for variance in variances:
        assert not (variance == 1).all()
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_local_file_is_loaded_without_its_classifier(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str, dtype: torch.dtype
) -> None:
    path = tmp_path / f"weights{suffix}"
    saved = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    if suffix == ".safetensors":
        safetensors.torch.save_file(saved, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in saved.items()}}, path)
    loaded = Backbone("test_resnet", weights=str(path)).model.state_dict()
    for key, value in loaded.items():
        torch.testing.assert_close(value, saved[key].to(value.dtype))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "weights.pth"
    torch.save({"a": Evil()}, path, pickle_module=pickle)
    with pytest.raises(WeaksegError, match="can't be read as weights"):
        read_tensors(path)
    assert not marker.exists()


def test_a_refused_pickle_comes_with_no_advice_to_let_it_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": Fraction(1, 2)}, path)
    with pytest.raises(WeaksegError, match="it holds other things") as caught:
        read_tensors(path)
    assert not any(word in str(caught.value) for word in ("weights_only", "trust", "options"))


def test_a_file_that_would_inflate_is_not_read(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, deflated = tmp_path / "whole.pth", tmp_path / "deflated.pth"
    torch.save({**tensors, "more": torch.zeros(2**20)}, whole)
    packed = zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(whole) as source, packed as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert read_tensors(whole).keys() == {*tensors, "more"}
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(WeaksegError, match=r"would inflate to \d,\d{3},\d{3}"):
        read_tensors(deflated)


def test_a_damaged_archive_is_one_line(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tensors, path)
    whole = path.read_bytes()
    central = whole.index(b"PK\x01\x02")
    name = whole.index(b"/", central)
    for place, value in ((central, b"X"), (central + 6, b"\xff"), (name, b"\xff")):
        path.write_bytes(whole[:place] + value + whole[place + 1 :])
        with pytest.raises(WeaksegError, match="can't be read as weights: it holds nothing whole"):
            read_tensors(path)


@pytest.mark.parametrize(
    "wrapper",
    ["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module.backbone.model."],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_wrappers_put_before_names_is_taken_off(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str, wrapper: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    wrapped = {f"{wrapper}{key}": value for key, value in tensors.items()}
    wrapped["decode_head.weight"] = torch.zeros(1)  # of a larger network
    if suffix == ".safetensors":
        safetensors.torch.save_file(wrapped, path)
    else:
        torch.save(wrapped, path)
    loaded = Backbone("test_resnet", weights=str(path)).model.state_dict()
    assert loaded.keys() < tensors.keys()
    for key, value in loaded.items():
        torch.testing.assert_close(value, tensors[key], rtol=0, atol=0)


def test_a_larger_network_of_the_kind_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "weights.pth"
    more = {**tensors, "layer4.9.conv1.weight": torch.zeros(1)}
    torch.save({f"module.{key}": value for key, value in more.items()}, path)
    with pytest.raises(WeaksegError, match=r"they have layer4\.9\.conv1\.weight and it has none"):
        Backbone("test_resnet", weights=str(path))


def test_a_misfit_shows_both_sides(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"net.{key}": value for key, value in tensors.items()}, path)
    with pytest.raises(
        WeaksegError, match=r"it wants conv1\.0\.weight, .*; they have net\.conv1\.0\.weight, "
    ) as caught:
        Backbone("test_resnet", weights=str(path))
    assert len(str(caught.value)) < 500
    torch.save({**tensors, "conv1.0.weight": torch.zeros(2, 5)}, path)
    with pytest.raises(WeaksegError, match=r"conv1\.0\.weight is \(2, 5\), not \(16, 3, 3, 3\)"):
        Backbone("test_resnet", weights=str(path))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], number: float
) -> None:
    path = tmp_path / "weights.pth"
    tensors["layer1.0.conv1.weight"].view(-1)[-1] = number
    torch.save(tensors, path)
    with pytest.raises(WeaksegError, match=r"layer1\.0\.conv1\.weight of .* holds NaN or infinity"):
        Backbone("test_resnet", weights=str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", None, "There is no weights file"),
        ("a.safetensors", b"not tensors", "can't be read as weights"),
        ("a.pth", b"", "can't be read as weights"),
    ],
)
def test_missing_and_corrupt_files(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeaksegError, match=message):
        read_tensors(tmp_path / name)


def test_a_file_of_other_things_than_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(WeaksegError, match="holds no state dict"):
        read_tensors(tmp_path / "a.pth")


def test_tensors_of_another_network_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    tensors.pop("layer1.0.conv1.weight")
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(WeaksegError, match=r"don't fit .*layer1\.0\.conv1\.weight"):
        Backbone("test_resnet", weights=str(path))


def test_no_network_names_the_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", refuse)
    with pytest.raises(WeaksegError) as caught:
        Backbone("resnet18", weights="imagenet")
    message = str(caught.value)
    assert all(way in message for way in ("network", "backbone.weights", "efficientnet_lite1"))


def vit_tensors(name: str, **arguments: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments)
    return {key: value.clone() for key, value in model.state_dict().items()}


def load_saved(tmp_path: Path, tensors: dict[str, torch.Tensor], name: str) -> Backbone:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return Backbone(name, weights=str(path)).eval()


@pytest.mark.parametrize("wrapper", ["", "module.", "model."])
def test_positions_of_images_of_another_size_are_brought_to_the_models(
    tmp_path: Path, wrapper: str
) -> None:
    given = vit_tensors("test_vit", img_size=96)
    wrapped = {f"{wrapper}{key}": value for key, value in given.items()}
    loaded = load_saved(tmp_path, wrapped, "test_vit").model.state_dict()
    (resized,) = [key for key, value in loaded.items() if value.shape != given[key].shape]
    assert resized == "pos_embed"
    torch.testing.assert_close(loaded["pos_embed"][:, 0], given["pos_embed"][:, 0])
    for key in loaded.keys() - {resized}:
        torch.testing.assert_close(loaded[key], given[key], rtol=0, atol=0)


def test_a_vit_under_the_names_of_openclip(tmp_path: Path) -> None:
    """Its image tower, beside the text's."""
    given = vit_tensors("test_vit")
    whole = {f"visual.trunk.{key}": value for key, value in given.items()}
    whole["token_embedding.weight"] = torch.zeros(5, 7)
    whole["visual.head.proj.weight"] = torch.zeros(9, 64)
    loaded = load_saved(tmp_path, whole, "test_vit").model.state_dict()
    for key, value in loaded.items():
        torch.testing.assert_close(value, given[key], rtol=0, atol=0)


def test_a_vit_under_the_names_of_dinov2(tmp_path: Path) -> None:
    """Where the class token has a position, which timm adds to it, and registers have none."""
    name = "vit_small_patch14_reg4_dinov2"
    given = vit_tensors(name, img_size=28)
    published = {key: value for key, value in given.items() if key != "reg_token"}
    published["register_tokens"] = given["reg_token"]
    position = torch.rand(1, 1, 384)
    published["pos_embed"] = torch.cat([position, given["pos_embed"]], dim=1)
    published["mask_token"] = torch.zeros(1, 384)
    loaded = load_saved(tmp_path, published, name).model.state_dict()
    torch.testing.assert_close(loaded["cls_token"], given["cls_token"] + position)
    torch.testing.assert_close(loaded["reg_token"], given["reg_token"])
    assert loaded["pos_embed"].shape == (1, 37**2, 384)


def test_another_vit_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match=r"don't fit this backbone: .*is \(.*not \(") as caught:
        load_saved(tmp_path, vit_tensors("test_vit3"), "test_vit")
    assert "\n" not in str(caught.value)


@pytest.mark.realdata
def test_shared_dinov2_fits(shared: Path) -> None:
    path = shared / "weights" / "dinov2_vits14_reg4_mri_finetuned.safetensors"
    backbone = Backbone("vit_small_patch14_reg4_dinov2", str(path)).eval()
    with torch.no_grad():
        final = backbone(torch.rand(1, 3, 65, 97)).final
    assert final.shape == (1, 384, 5, 7)
    assert torch.isfinite(final).all() and final.any()
    given = read_tensors(path)["pos_embed"]
    torch.testing.assert_close(backbone.model.pos_embed.data, given.float(), rtol=0, atol=0)


@pytest.mark.realdata
def test_shared_resnet50_fits(shared: Path) -> None:
    path = shared / "weights" / "resnet50_tomato_finetuned.safetensors"
    backbone = Backbone("resnet50", str(path), output_stride=16, dilated=False).eval()
    with torch.no_grad():
        assert torch.isfinite(backbone(torch.rand(1, 3, 64, 64)).final).all()


@pytest.mark.parametrize("classifier", ["pre_logits.fc1", "classifier.0"])
def test_vggs_features_are_loaded_without_what_stands_behind_them(
    tmp_path: Path, classifier: str
) -> None:
    made = Backbone("vgg11", weights="none").model.state_dict()
    source = {key: value.contiguous() for key, value in made.items()}
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({**source, f"{classifier}.weight": torch.zeros(9)}, path)
    loaded = Backbone("vgg11", str(path), output_stride=8).model.state_dict()
    assert loaded.keys() == source.keys()
    for key, value in loaded.items():
        torch.testing.assert_close(value, source[key], rtol=0, atol=0)


@pytest.mark.realdata
def test_shared_vgg16_fits(shared: Path) -> None:
    path = shared / "weights" / "vgg16_imagenet_features.safetensors"
    backbone = Backbone("vgg16", str(path), output_stride=8).eval()
    with torch.no_grad():
        final = backbone(torch.rand(1, 3, 65, 97)).final
    assert final.shape == (1, 512, 9, 13)
    assert torch.isfinite(final).all() and final.any()
