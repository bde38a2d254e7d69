"""Segment the photos held out with a network that learned masks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import UnreadablePhoto, read_photo, shrink
from weakseg.data.masks import write_mask
from weakseg.errors import WeaksegError, shortened
from weakseg.files import write_bytes
from weakseg.grid import upsample, upsampled_bands
from weakseg.methods.base import (
    PICTURE,
    Artefact,
    Executor,
    File,
    Kind,
    Photos,
    Slot,
    Step,
    Tools,
    same_size,
)
from weakseg.methods.crf import Crf, refine_all
from weakseg.methods.deeplab import SEGMENTER
from weakseg.methods.maps import MAPS, MASK
from weakseg.methods.settings import Scales, Section
from weakseg.progress import Progress
from weakseg.refine.settings import CRFSettings

if TYPE_CHECKING:
    import torch

    from weakseg.methods.networks import SegmenterCard

ONNX = ".onnx"
"""The suffix of networks that `weakseg export` wrote for other programs, and for this one."""

_GPU_BATCH = 8
_GPU_LOGITS = 2**27  # of one pass, 512 MiB as float32; two passes may be under way


class Views(Section):
    """What of a photo a network sees, its probabilities averaged (`weakseg.segment.tta`).

    More than the photo as it is are test-time augmentation (Dobko et al. 2020, section 3.4).

    Attributes:
        scales: factors on its size.
        flip: whether each has its mirror image.
    """

    scales: Scales = (1.0,)
    flip: bool = False

    @property
    def one(self) -> bool:
        """Whether a photo is seen once, as it is."""
        return self.scales == (1.0,) and not self.flip


class Segment(Views):
    """What a network sees of a photo, and what becomes of its probabilities.

    Attributes:
        crf: the dense CRF that masks come from; by default they come from the probabilities.
    """

    crf: Crf | None = None


TTA = Segment(scales=(0.5, 1.0, 2.0), flip=True)
"""The paper's."""

CRF = Crf(
    unary="scores",
    kernels=CRFSettings(
        gaussian_sxy=3,
        gaussian_compat=3,
        bilateral_sxy=50,
        bilateral_srgb=5,
        bilateral_compat=4,
    ),
    scale=0.5,
)
"""The numbers of the recipes' `svm+crf`, at half the size."""


def run(step: Step, tools: Tools) -> None:
    """Write `ID.png` of the photos held out."""
    photos = [
        (sample.id, sample.image)
        for sample in tools.photos.samples
        if not (step.folder / f"{sample.id}{MASK}").exists()
    ]
    left_out = segment_photos(
        step["network"].folder / SEGMENTER,
        photos,
        step.folder,
        tools.network,
        tools.progress,
        str(tools.device),
        step.settings,
        name=step.name,
    )
    if left_out:
        raise WeaksegError(
            f"{step.name}: {len(left_out)} photos get no mask, such as {left_out[0].rstrip('.')}. "
            "Lower data.long_side, or leave them out of the split."
        )


def segment_photos(
    model: Path,
    photos: Sequence[tuple[str, Path]],
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: str,
    settings: Segment,
    scores: bool = False,
    name: str = "segment",
) -> list[str]:
    """Write `folder/NAME.png` of every photo, given as (NAME, file); what is there is replaced.

    Args:
        model: a segmentation network's file.
        executor: the one for networks.
        device: as torch names it.
        settings: what is seen of each photo, and whether a CRF makes its mask.
        scores: also write `folder/NAME.safetensors`: `scores`, float16 (C+1, H, W) in [0, 1].
        name: shown with the progress.

    Returns:
        Why photos were left out: one line for each that could not be read, or that the network or
        the memory fails at.
    """
    make = _Segmenter(model, folder, settings, scores, device)
    groups = same_size(photos, lambda photo: photo[1])
    batches: Iterable[tuple[_Photo, ...]] = ((photo,) for _, same in groups for photo in same)
    if device.startswith("cuda"):
        from weakseg.methods.networks import read_segmenter_card

        batches = _batches(groups, read_segmenter_card(model), settings)
    left_out = []
    with progress.track(name, len(photos)) as advance:
        for done, reasons in executor.map(make, batches):
            for reason in reasons:
                progress.say(f"left out: {reason}")
            left_out += reasons
            advance(done)
    return left_out


class SegmentationModel:
    """A network's file, ready for inference.

    Args:
        file: what a step of kind deeplab wrote.

    Attributes:
        card: what the file says of it.
    """

    def __init__(self, file: Path, device: "torch.device") -> None:
        from weakseg.methods.networks import prepare, read_segmenter

        network, self.card = read_segmenter(file, device)
        self._network, self._computing = prepare(network, self.card.precision, device)
        self._device = device

    def probabilities(
        self, photos: Sequence[NDArray[np.uint8]], views: Views
    ) -> NDArray[np.float32]:
        """Float32 (N, C+1, h, w) of photos of one size; h by w is theirs, or the card's limit.

        Args:
            photos: uint8 (H, W, 3), N of them.
            views: of each, whose probabilities are averaged.

        Raises:
            ValueError: what the network gives is not finite.
        """
        import torch

        from weakseg.segment.tta import segment

        small = np.stack([shrink(photo, self.card.long_side) for photo in photos])
        images = torch.from_numpy(small).to(self._device).permute(0, 3, 1, 2).float() / 255
        with self._computing():
            averaged = segment(self._network, images, views.scales, views.flip)
            found: NDArray[np.float32] = averaged.cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError("the network gives NaN or infinity")
        return found


def describe(views: Views) -> Mapping[str, Any]:
    """What a row of figures says of views."""
    scales = ", ".join(f"{scale:g}" for scale in views.scales)
    return {} if views.one else {"tta": f"{'flip x ' if views.flip else ''}{scales}"}


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"crf": step.settings.crf is not None, **describe(step.settings)}


def _files(step: Step, photos: Photos) -> Iterator[File]:
    for sample in photos.samples:
        size = photos.sizes.get(sample.id)
        yield File(f"{sample.id}{MASK}", {PICTURE: size} if size else {})


_Photo = tuple[str, Path]


def _batches(
    groups: Iterable[tuple[tuple[int, int], list[_Photo]]], card: "SegmenterCard", views: Views
) -> Iterator[tuple[_Photo, ...]]:
    """Photos of one size, as many together as memory allows."""
    for (height, width), same in groups:
        shrunk = min(1, card.long_side / max(height, width, 1)) ** 2
        pixels = height * width * shrunk * max(views.scales) ** 2
        logits = 2 * (len(card.classes) + 1) * max(pixels, 1)
        count = max(1, min(_GPU_BATCH, int(_GPU_LOGITS / logits)))
        yield from (tuple(same[i : i + count]) for i in range(0, len(same), count))


@dataclass(frozen=True)
class _Segmenter:
    model: Path
    folder: Path
    settings: Segment
    scores: bool
    device: str

    def __call__(self) -> Callable[[tuple[_Photo, ...]], tuple[int, list[str]]]:
        score = self._open()

        def work(batch: tuple[_Photo, ...]) -> tuple[int, list[str]]:
            read, reasons = [], []
            for name, path in batch:
                try:
                    read.append((name, read_photo(path)))
                except UnreadablePhoto as error:
                    reasons.append(str(error))
            if not read:
                return len(batch), reasons
            try:
                found = [
                    self._refined(photo, scored)
                    for (_, photo), scored in zip(
                        read, score([photo for _, photo in read]), strict=True
                    )
                ]
            except (ValueError, RuntimeError, MemoryError) as error:
                if len(batch) > 1:
                    return len(batch), [line for photo in batch for line in work((photo,))[1]]
                return 1, [f"{batch[0][1]}: {shortened(str(error), 200)}"]
            for (name, photo), scored in zip(read, found, strict=True):
                self._write(name, photo.shape[:2], scored)
            return len(batch), reasons

        return work

    def _open(
        self,
    ) -> Callable[[list[NDArray[np.uint8]]], Iterable[NDArray[np.float32]]]:
        """What scores photos of one size: each (C+1, h, w), whose argmax is the mask."""
        if self.model.suffix != ONNX:
            import torch

            model = SegmentationModel(self.model, torch.device(self.device))
            return lambda photos: model.probabilities(photos, self.settings)

        from weakseg.segment.onnx import OnnxModel

        exported = OnnxModel(self.model)

        def score(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
            whole = max(photo.shape[:2]) <= exported.card.long_side
            if whole and self.settings == Segment() and not self.scores:
                return exported.score(photo)
            return exported.probabilities(photo, self.settings.scales, self.settings.flip)

        return lambda photos: [score(photo) for photo in photos]

    def _refined(
        self, photo: NDArray[np.uint8], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if self.settings.crf is None:
            return scores
        seen = shrink(photo, max(scores.shape[1:]))  # as large as the network's limit lets it be
        return refine_all(seen, scores, self.settings.crf)

    def _write(self, name: str, size: tuple[int, ...], scores: NDArray[np.float32]) -> None:
        """At the photo's own size, from scores rather than from labels."""
        height, width = size
        mask = np.empty((height, width), np.uint8)
        for rows, band in upsampled_bands(scores, height, width):
            mask[rows] = band.argmax(axis=0)
        if self.scores:
            whole = upsample(scores, height, width).astype(np.float16)
            content = safetensors.numpy.save({"scores": whole})
            write_bytes(self.folder / f"{name}{MAPS}", content)
        write_mask(self.folder / f"{name}.png", mask)


KIND = Kind(
    name="segment",
    summary="masks of the photos held out, by a segmentation network",
    settings=Segment,
    gives=frozenset({Artefact.MASKS}),
    takes=(Slot("network", frozenset({Artefact.SEGMENTER})),),
    version=2,
    run=run,
    files=_files,
    photos="held out",
    network=True,
    protocol=_protocol,
)
