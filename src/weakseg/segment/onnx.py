"""A segmentation network as an ONNX file, run by ONNX Runtime: no PyTorch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from weakseg.data.images import shrink
from weakseg.errors import WeaksegError, mismatch, shortened
from weakseg.grid import upsample

INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True)
class OnnxCard:
    """What the metadata of a file say: before and behind the network, and of its use.

    Each is an entry of ONNX's `metadata_props`, as JSON.

    Attributes:
        classes: names of ids 1 to C; id 0 is the background.
        palette: red, green and blue of ids 0 to C.
        input_range: of the float32 images (N, 3, H, W); mean and deviation are in the network.
        channels: the order of theirs.
        stride: image pixels a cell of the network's coarsest map. Any size will do.
        long_side: photos with a longer side are segmented at that size.
        output: what the network gives.
        tta_scales: of test-time augmentation.
        tta_flip: whether it has mirror images.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    stride: int
    long_side: int
    tta_scales: tuple[float, ...]
    tta_flip: bool
    input_range: tuple[float, float] = (0.0, 1.0)
    channels: str = "RGB"
    output: str = "logits (N, C+1, H, W): the mask is their argmax over axis 1"

    def as_metadata(self) -> dict[str, str]:
        return {key: json.dumps(value) for key, value in asdict(self).items()}


class OnnxModel:
    """An ONNX file that `weakseg export` wrote, on one thread of the CPU.

    Attributes:
        card: what its metadata say.

    Raises:
        WeaksegError: it is no such file.
    """

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # photos share the cores
        options.enable_mem_pattern = False  # it is for images of one size
        options.log_severity_level = 4
        self._session = _open(file, options)
        self.card = _card(self._session, file)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 (N, C+1, H, W) of images (N, 3, H, W) in [0, 1], of any size.

        Raises:
            ValueError: the network fails, or gives what is not finite.
        """
        try:
            found: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: images})[0]
        except Exception as error:  # ONNX Runtime's own are of no common type
            raise ValueError(str(error)) from error
        if not np.isfinite(found).all():
            raise ValueError("the network gives NaN or infinity")
        return found

    def score(self, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (C+1, H, W) of a photo, uint8 (H, W, 3), as large as it is."""
        found: NDArray[np.float32] = self.logits(_images(photo))[0]
        return found

    def probabilities(
        self, photo: NDArray[np.uint8], scales: Sequence[float] = (1.0,), flip: bool = False
    ) -> NDArray[np.float32]:
        """Class probabilities (C+1, h, w), averaged over scales and mirror images.

        See `weakseg.segment.tta.segment`, whose result it is.

        Args:
            photo: uint8 (H, W, 3); one with a side over `card.long_side` is made smaller first.
        """
        images = _images(shrink(photo, self.card.long_side))
        height, width = images.shape[2:]
        total = np.zeros((len(self.card.classes) + 1, height, width), np.float32)
        for scale in scales:
            scaled = _rescale(images, scale)
            found = _softmax(self.logits(scaled)[0])
            if flip:
                mirrored = np.ascontiguousarray(scaled[..., ::-1])
                found += _softmax(self.logits(mirrored)[0])[..., ::-1]
                found /= 2
            total += upsample(found, height, width)
        total /= len(scales)
        return total


def read_card(file: Path) -> OnnxCard:
    """What a file's metadata say; the network is not made ready.

    Raises:
        WeaksegError: it is no file that `weakseg export` wrote.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return _card(_open(file, options), file)


def _card(session: Any, file: Path) -> OnnxCard:
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        return TypeAdapter(OnnxCard).validate_python(
            {key: json.loads(text) for key, text in metadata.items()}
        )
    except (ValidationError, ValueError) as error:
        reason = mismatch(error) if isinstance(error, ValidationError) else str(error)
        raise WeaksegError(
            f"{file} is no network that weakseg export wrote: its metadata have {reason}."
        ) from error


def _open(file: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own are of no common type
        reason = shortened(str(error), 200).rstrip(". ")
        raise WeaksegError(
            f"{file} is no ONNX file that can be used: {reason}. Make it anew by weakseg export."
        ) from error


def _images(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    planes = np.ascontiguousarray(photo.transpose(2, 0, 1))[None]
    return planes.astype(np.float32) / np.float32(255)


def _rescale(images: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """See `weakseg.networks.features.rescale`: Pillow's filter is torch's antialiased one."""
    if scale == 1:
        return images
    height, width = (max(1, round(side * scale)) for side in images.shape[2:])
    planes = (Image.fromarray(plane) for plane in images[0])
    resized = (plane.resize((width, height), Image.Resampling.BILINEAR) for plane in planes)
    return np.stack([np.asarray(plane, np.float32) for plane in resized])[None]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of (C, h, w) over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits
