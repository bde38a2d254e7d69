"""Train the segmentation network on the masks of another stage, and segment photos with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.check import mask_fault
from weakseg.data.dataset import Sample
from weakseg.data.images import UnreadablePhoto, photo_size, read_photo, shrink
from weakseg.data.masks import MaskFile, write_mask
from weakseg.errors import WeaksegError, shortened
from weakseg.files import write_bytes, write_json
from weakseg.localize.grid import upsample, upsampled_bands
from weakseg.names import FIGURES
from weakseg.networks.fused import fuse
from weakseg.progress import Progress
from weakseg.recipe import Segment
from weakseg.segment.tta import segment
from weakseg.stages import balance
from weakseg.stages.base import Context, made, same_size
from weakseg.stages.executor import Executor, ThreadExecutor
from weakseg.stages.fit import Loop
from weakseg.stages.networks import (
    SegmenterCard,
    build_segmenter,
    compute_type,
    read_segmenter,
    read_segmenter_card,
    write_segmenter,
)
from weakseg.training.segmentation import MaskedExample, MaskedPhotos, SegmentationTraining

NETWORK = "segmenter"
SEGMENT = "segment"
TTA = "segment+tta"
SEGMENTER = "segmenter.safetensors"
BEST_SO_FAR = "best-so-far.safetensors"
SCORES = ".safetensors"
_GPU_BATCH = 8
_GPU_LOGITS = 2**27  # of one pass, 512 MiB as float32; two passes may be under way


def train(context: Context) -> None:
    """Write `segmenter/segmenter.safetensors`, the best by mIoU, and `segmenter/scores.json`.

    The mIoU is that against held-out masks of the stage that the network learns from, which are
    pseudo masks, unless the recipe names a folder of real ones. A training that was cut off goes on
    from its last whole epoch; till it has ended, `segmenter/best-so-far.safetensors` is the network
    of its best epoch, in the same form.

    Raises:
        WeaksegError: too few photos, or no mask of those held out in the recipe's folder.
    """
    folder = context.stage_folder(NETWORK)
    if made(folder, FIGURES, SEGMENTER):
        return
    recipe, settings = context.recipe, context.recipe.segment
    assert settings is not None
    samples, fraction = context.masked_samples(), settings.validation_fraction
    kept, held_out = balance.split(context, samples, fraction)
    if len(kept) < 2:
        raise WeaksegError(
            "A segmentation network needs three photos at least, one of them to be judged by. Tag "
            "more photos."
        )
    judges, judged_by = _judges(held_out, context)
    card = SegmenterCard(
        settings.backbone,
        context.dataset.classes,
        recipe.data.long_side,
        settings.tta_scales,
        settings.precision,
    )
    best_so_far = folder / BEST_SO_FAR
    L.seed_everything(recipe.seed, verbose=False)
    network = build_segmenter(settings.backbone, len(context.dataset.classes))
    loop = Loop(
        name=NETWORK,
        section="segment",
        folder=folder,
        examples=_Masked(
            _pairs(kept, context.stage_folder(settings.masks)),
            judges,
            settings,
            recipe.seed,
            tuple(network.backbone.mean.flatten().tolist()),
        ),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=recipe.seed,
        precision=settings.precision,
        device=context.device,
        executor=context.executor,
        progress=context.progress,
        monitor="miou",
        on_best=_BestKeeper(best_so_far, card),
    )
    try:
        epochs = loop.fit(SegmentationTraining(network, settings.optimizer, settings.decay_power))
    except BaseException:
        if best_so_far.exists():
            context.progress.say(
                f"{NETWORK}: the training has stopped; till it goes on, weakseg predict "
                f"{context.folder} uses its best epoch so far"
            )
        raise
    write_json(folder / FIGURES, {"miou_against": judged_by, "epochs": epochs})
    write_segmenter(folder / SEGMENTER, network.state_dict(), card)
    best_so_far.unlink(missing_ok=True)


def run(context: Context) -> None:
    """Write `segment/ID.png` of the photos held out."""
    _segment_held_out(context, SEGMENT, tta=False)


def run_tta(context: Context) -> None:
    """Write `segment+tta/ID.png`: with test-time augmentation, whose scales the network notes."""
    assert context.recipe.segment is not None
    scales = context.recipe.segment.tta_scales
    model = context.stage_folder(NETWORK) / SEGMENTER
    network, card = read_segmenter(model, torch.device("cpu"))
    if card.tta_scales != scales:
        write_segmenter(model, network.state_dict(), replace(card, tta_scales=scales))
    _segment_held_out(context, TTA, tta=True)


def segment_photos(
    model: Path,
    photos: Sequence[tuple[str, Path]],
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
    tta: bool = False,
    scores: bool = False,
    name: str = SEGMENT,
) -> list[str]:
    """Write `folder/NAME.png` of every photo, given as (NAME, file); what is there is replaced.

    Args:
        model: a segmentation network's file.
        tta: with test-time augmentation, at the scales of the network's card.
        scores: also write `folder/NAME.safetensors`: `scores`, float16 (C+1, H, W) in [0, 1].
        name: shown with the progress.

    Returns:
        Why photos were left out: one line for each that could not be read, or that the network or
        the memory fails at.
    """
    make = _Segmenter(model, folder, tta, scores, str(device))
    groups = same_size(photos, lambda photo: photo[1])
    batches: Iterable[tuple[_Photo, ...]] = ((photo,) for _, same in groups for photo in same)
    if device.type == "cuda":
        executor = ThreadExecutor()
        batches = _batches(groups, read_segmenter_card(model))
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
        file: what `train` wrote.

    Attributes:
        card: what the file says of it.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        self._network, self.card = read_segmenter(file, device)
        self._device, self._dtype = device, compute_type(self.card.precision, device)
        self._network.backbone = fuse(self._network.backbone, self._dtype)

    def probabilities(
        self, photos: Sequence[NDArray[np.uint8]], scales: Sequence[float], flip: bool
    ) -> NDArray[np.float32]:
        """Float32 (N, C+1, h, w) of photos of one size; h by w is theirs, or the card's limit.

        Args:
            photos: uint8 (H, W, 3), N of them.
            scales, flip: as `weakseg.segment.tta.segment` has them.

        Raises:
            ValueError: what the network gives is not finite.
        """
        small = np.stack([shrink(photo, self.card.long_side) for photo in photos])
        images = torch.from_numpy(small).to(self._device).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            found: NDArray[np.float32] = segment(self._network, images, scales, flip).cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError("the network gives NaN or infinity")
        return found


def _segment_held_out(context: Context, name: str, tta: bool) -> None:
    folder = context.stage_folder(name)
    photos = [
        (sample.id, sample.image)
        for sample in context.held_out.samples
        if not (folder / f"{sample.id}.png").exists()
    ]
    model = context.stage_folder(NETWORK) / SEGMENTER
    left_out = segment_photos(
        model, photos, folder, context.executor, context.progress, context.device, tta, name=name
    )
    if left_out:
        raise WeaksegError(
            f"{name}: {len(left_out)} photos get no mask, such as {left_out[0].rstrip('.')}. Lower "
            "data.long_side, or leave them out of the split."
        )


def _judges(held_out: Sequence[Sample], context: Context) -> tuple[list[tuple[Path, Path]], str]:
    """Photos and masks that choose the epoch, and what masks they are."""
    settings = context.recipe.segment
    assert settings is not None
    if settings.validation_masks is None:
        pairs = _pairs(held_out, context.stage_folder(settings.masks))
        return pairs, f"held-out masks of {settings.masks}"
    folder = Path(settings.validation_masks)
    pairs = [(photo, mask) for photo, mask in _pairs(held_out, folder) if mask.is_file()]
    for photo, mask in pairs:
        if fault := mask_fault(MaskFile(mask), photo_size(photo), len(context.dataset.classes)):
            raise WeaksegError(f"segment.validation_masks: {fault}")
    if not pairs:
        raise WeaksegError(
            f"segment.validation_masks: {folder} has the mask of no photo held out, of which there "
            f"are {len(held_out)} (the first: {held_out[0].id}.png)."
        )
    return pairs, f"real masks of {len(pairs)} photos held out, in {folder}"


def _pairs(samples: Sequence[Sample], masks: Path) -> list[tuple[Path, Path]]:
    return [(sample.image, masks / f"{sample.id}.png") for sample in samples]


@dataclass(frozen=True)
class _Masked:
    kept: Sequence[tuple[Path, Path]]
    held_out: Sequence[tuple[Path, Path]]
    settings: Segment
    seed: int
    fill: tuple[float, ...]

    def __call__(self, epoch: int | None) -> TorchDataset[MaskedExample]:
        pairs = self.held_out if epoch is None else self.kept
        settings = self.settings
        return MaskedPhotos(
            pairs,
            settings.long_side,
            settings.crop,
            self.fill,
            settings.augmentation,
            self.seed,
            epoch,
        )


_Photo = tuple[str, Path]


def _batches(
    groups: Iterable[tuple[tuple[int, int], list[_Photo]]], card: SegmenterCard
) -> Iterator[tuple[_Photo, ...]]:
    """Photos of one size, as many together as memory allows."""
    for (height, width), same in groups:
        shrunk = min(1, card.long_side / max(height, width, 1)) ** 2
        pixels = height * width * shrunk * max(card.tta_scales) ** 2
        logits = 2 * (len(card.classes) + 1) * max(pixels, 1)
        count = max(1, min(_GPU_BATCH, int(_GPU_LOGITS / logits)))
        yield from (tuple(same[i : i + count]) for i in range(0, len(same), count))


@dataclass(frozen=True)
class _BestKeeper:
    path: Path
    card: SegmenterCard

    def __call__(self, state: dict[str, Tensor]) -> None:
        prefix = "network."
        tensors = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        write_segmenter(self.path, tensors, self.card)


@dataclass(frozen=True)
class _Segmenter:
    model: Path
    folder: Path
    tta: bool
    scores: bool
    device: str

    def __call__(self) -> Callable[[tuple[_Photo, ...]], tuple[int, list[str]]]:
        model = SegmentationModel(self.model, torch.device(self.device))
        scales = model.card.tta_scales if self.tta else (1.0,)

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
                found = model.probabilities([photo for _, photo in read], scales, flip=self.tta)
            except (ValueError, RuntimeError, MemoryError) as error:
                if len(batch) > 1:
                    return len(batch), [line for photo in batch for line in work((photo,))[1]]
                return 1, [f"{batch[0][1]}: {shortened(str(error), 200)}"]
            for (name, photo), scored in zip(read, found, strict=True):
                self._write(name, photo.shape[:2], scored)
            return len(batch), reasons

        return work

    def _write(self, name: str, size: tuple[int, ...], scores: NDArray[np.float32]) -> None:
        """At the photo's own size, from scores rather than from labels."""
        height, width = size
        mask = np.empty((height, width), np.uint8)
        for rows, band in upsampled_bands(scores, height, width):
            mask[rows] = band.argmax(axis=0)
        if self.scores:
            whole = upsample(scores, height, width).astype(np.float16)
            content = safetensors.numpy.save({"scores": whole})
            write_bytes(self.folder / f"{name}{SCORES}", content)
        write_mask(self.folder / f"{name}.png", mask)
