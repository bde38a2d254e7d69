"""The networks that steps share: built by a recipe, kept as files."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from weakseg import stores
from weakseg.errors import WeaksegError, mismatch, quoted
from weakseg.files import describe, write_bytes
from weakseg.memory import memory_here
from weakseg.methods.settings import BackboneSection, PhotoTraining, Precision
from weakseg.names import Head
from weakseg.networks.backbones import Backbone, count_weights
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.networks.cpu import onednn
from weakseg.networks.cpu.fused import fuse
from weakseg.networks.footprint import training_bytes
from weakseg.networks.irnet import IRNet
from weakseg.networks.pixel_head import PixelHeadShape, PixelSegmenter
from weakseg.networks.pooling import AVERAGE, Pooling
from weakseg.networks.segmenter import SegmentationNetwork, Segmenter
from weakseg.networks.sipe import Sides
from weakseg.networks.weights import check_finite

_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_MADE_OF = "made_of"

_MAPS_PER_IMAGE = 1600
"""How many times an image's memory its maps take at most; ResNet-50 is at 190, ViT-L at 1,520."""


def usable_precision(precision: str, device: torch.device) -> str:
    """The precision itself, or float32 on a CPU that has no instructions for it.

    Without them a convolution in bfloat16 took 25 times as long as in float32 (docs/benchmarks.md).
    """
    if device.type != "cpu" or precision == "32-true":
        return precision
    return precision if onednn.computes(_TYPES[precision]) else "32-true"


def compute_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that a network computes in; None is float32."""
    return _TYPES.get(usable_precision(precision, device))


def replaced_precisions(wanted: Iterable[str], device: torch.device) -> list[str]:
    """Those of some precisions in whose place networks compute in float32."""
    return sorted(name for name in set(wanted) if usable_precision(name, device) != name)


Network = TypeVar("Network", CamClassifier, IRNet, SegmentationNetwork)


def prepare(
    network: Network, precision: Precision, device: torch.device
) -> tuple[Network, Callable[[], AbstractContextManager[Any]]]:
    """A network ready for inference, and in what block to call it.

    Its backbone is fused (`weakseg.networks.cpu.fused`); the block computes in `precision`.
    """
    network = network.to(device).eval()
    dtype = compute_type(precision, device)
    network.backbone = fuse(network.backbone, dtype)
    return network, lambda: torch.autocast(device.type, dtype, enabled=dtype is not None)


def check_memory(
    name: str, network: nn.Module, training: PhotoTraining, photos: int, device: torch.device
) -> None:
    """Refuse batches of which the maps alone exceed the memory of the machine.

    Args:
        name: the step's.
        photos: how many there are.

    Raises:
        WeaksegError: if they do.
    """
    count = min(training.batch_size // training.accumulate, photos)
    side = training.crop
    most = memory_here()
    if device.type == "cuda":
        most = sum(
            torch.cuda.get_device_properties(i).total_memory
            for i in range(torch.cuda.device_count())
        )
    if _MAPS_PER_IMAGE * 4 * 3 * count * side**2 < most:
        return  # which the pass, a second long, need not find out
    wanted = training_bytes(network, count, side)
    if training.precision != "32-true":
        wanted //= 2
    if wanted > most:
        raise WeaksegError(
            f"{name}: a step with {count} crops of {side} pixels at a time takes over "
            f"{wanted / 2**30:.0f} GiB of memory, of {most / 2**30:.0f}: "
            f"{training.less_memory(name)}."
        )


def build_classifier(
    backbone: BackboneSection, classes: int, head: Head = "linear", pooling: Pooling = AVERAGE
) -> CamClassifier:
    """The classifier that a recipe asks for, with its ImageNet weights."""
    return CamClassifier(_build_backbone(backbone), classes, head, pooling)


def build_irnet(backbone: BackboneSection) -> IRNet:
    """The IRNet that a recipe asks for, with its backbone's ImageNet weights."""
    return IRNet(_build_backbone(backbone))


def build_segmenter(
    backbone: BackboneSection, classes: int, pixel_head: PixelHeadShape | None = None
) -> SegmentationNetwork:
    """The segmentation network that a recipe asks for, with its ImageNet weights."""
    if pixel_head:
        return PixelSegmenter(_build_backbone(backbone), classes, pixel_head)
    return Segmenter(_build_backbone(backbone), classes)


def write_classifier(
    path: Path,
    network: CamClassifier,
    backbone: BackboneSection,
    head: Head,
    classes: tuple[str, ...],
) -> None:
    """Write a classifier with all that it takes to build it again."""
    made_of = {
        "backbone": backbone.model_dump(),
        "head": head,
        "pooling": asdict(network.pooling),
        "classes": classes,
    }
    _write(path, network.state_dict(), made_of)


def read_classifier(path: Path, device: torch.device) -> CamClassifier:
    """Read what `write_classifier` wrote, in eval mode, with the names of its outputs.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    with _whole(path, "classifier"):
        made_of, tensors = _read(path)
        section = _weightless(made_of["backbone"], tensors)
        pooling = Pooling(**made_of["pooling"])
        network = build_classifier(section, len(made_of["classes"]), made_of["head"], pooling)
        network.classes = tuple(made_of["classes"])
        network.load_state_dict(tensors)
    return network.to(device).eval()


def write_sides(path: Path, sides: Sides) -> None:
    """Write side convolutions; the classifier beside them says of which backbone."""
    _write(path, sides.state_dict(), {})


def read_sides(path: Path, backbone: Backbone, normalized: bool, device: torch.device) -> Sides:
    """Read what `write_sides` wrote, in eval mode.

    Raises:
        WeaksegError: if the file is missing, corrupt, or of another backbone.
    """
    with _whole(path, "side convolutions"):
        _, tensors = _read(path)
        sides = Sides(backbone.stages, normalized)
        sides.load_state_dict(tensors)
    return sides.to(device).eval()


def write_irnet(path: Path, network: IRNet, backbone: BackboneSection) -> None:
    """Write an IRNet with all that it takes to build it again."""
    _write(path, network.state_dict(), {"backbone": backbone.model_dump()})


def read_irnet(path: Path, device: torch.device) -> IRNet:
    """Read what `write_irnet` wrote, in eval mode.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    with _whole(path, "IRNet"):
        made_of, tensors = _read(path)
        network = build_irnet(_weightless(made_of["backbone"], tensors))
        network.load_state_dict(tensors)
    return network.to(device).eval()


@dataclass(frozen=True)
class SegmenterCard:
    """What a segmentation network's file says of it.

    Attributes:
        backbone: what it is built on.
        classes: names of ids 1 to C.
        long_side: photos with a longer side are segmented at that size.
        precision: what it computes in.
        pixel_head: of a network that is one; the others are DeepLabv3+.
    """

    backbone: BackboneSection
    classes: tuple[str, ...]
    long_side: int
    precision: Precision
    pixel_head: PixelHeadShape | None = None


def write_segmenter(path: Path, tensors: dict[str, Tensor], card: SegmenterCard) -> None:
    """Write a segmentation network's state with all that it takes to build and to use it again."""
    _write(path, tensors, TypeAdapter(SegmenterCard).dump_python(card, mode="json"))


def read_segmenter(path: Path, device: torch.device) -> tuple[SegmentationNetwork, SegmenterCard]:
    """Read what `write_segmenter` wrote, in eval mode.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    with _whole(path, "segmentation network"):
        made_of, tensors = _read(path)
        card = TypeAdapter(SegmenterCard).validate_python(made_of)
        section = _weightless(made_of["backbone"], tensors)
        network = build_segmenter(section, len(card.classes), card.pixel_head)
        network.load_state_dict(tensors)
    return network.to(device).eval(), card


def read_segmenter_card(path: Path) -> SegmenterCard:
    """The card alone.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    with _whole(path, "segmentation network"), safetensors.safe_open(path, "pt") as file:
        return TypeAdapter(SegmenterCard).validate_python(json.loads(file.metadata()[_MADE_OF]))


def _build_backbone(section: BackboneSection) -> Backbone:
    return Backbone(
        section.name,
        section.weights,
        section.output_stride,
        section.dilated,
        section.head_convolution,
        section.frozen_stages,
    )


def _weightless(backbone: dict[str, Any], tensors: dict[str, Tensor]) -> BackboneSection:
    """The backbone of a file, whose weights are in it: one that is named alone may be of any size.

    Raises:
        WeaksegError: it has more weights than the file.
    """
    section = BackboneSection.model_validate(backbone | {"weights": "none"})
    wanted = count_weights(section.name, section.output_stride)
    if wanted > (held := sum(tensor.numel() for tensor in tensors.values())):
        raise WeaksegError(
            f"its backbone {quoted(section.name)} has {wanted:,} weights, and the file {held:,}"
        )
    return section


def _write(path: Path, tensors: dict[str, Tensor], made_of: dict[str, Any]) -> None:
    # One entry: safetensors writes several in an order of its own each time.
    metadata = {_MADE_OF: json.dumps(made_of)}
    whole = {key: value.contiguous() for key, value in tensors.items()}
    write_bytes(path, safetensors.torch.save(whole, metadata))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(path, "pt") as file:
        made_of = json.loads(file.metadata()[_MADE_OF])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    check_finite(tensors, str(path))
    return made_of, tensors


@contextmanager
def _whole(path: Path, what: str) -> Iterator[None]:
    try:
        stores.bring(path)
        yield
    except WeaksegError as error:
        raise WeaksegError(f"{path} is no {what} that can be used: {error}") from error
    except Exception as error:  # broken files make the readers raise nearly any type
        reason = mismatch(error) if isinstance(error, ValidationError) else describe(error)
        raise WeaksegError(
            f"{path} is no {what} that can be used: {reason}. Give another file; what is "
            "damaged in a run's folder, the same `weakseg run` again makes anew."
        ) from error
