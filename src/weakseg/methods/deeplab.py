"""Train DeepLabv3+ on the masks of any step (Dobko et al. 2020, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from weakseg.data.balance import balanced_split
from weakseg.data.check import mask_fault
from weakseg.data.dataset import Sample
from weakseg.data.images import photo_size
from weakseg.data.masks import MaskFile
from weakseg.errors import WeaksegError
from weakseg.files import remove, write_json
from weakseg.methods.base import Artefact, File, Kind, Photos, Slot, Step, Tools, made
from weakseg.methods.settings import MOST_EXAMPLES, FilePath, PhotoTraining, Section, Share
from weakseg.names import FIGURES
from weakseg.refine.settings import CRFSettings

if TYPE_CHECKING:
    from torch import Tensor

    from weakseg.methods.networks import SegmenterCard
    from weakseg.networks.segmenter import Segmenter
    from weakseg.training.segmentation import MaskPair, SegmentationTraining

SEGMENTER = "segmenter.safetensors"
BEST_SO_FAR = "best-so-far.safetensors"


KERNELS = CRFSettings(
    gaussian_sxy=2,
    gaussian_compat=3,
    bilateral_sxy=53,
    bilateral_srgb=13,
    bilateral_compat=10,
)
"""SEC's and DSRG's, which have cells of 8 pixels and divide 3 and 80 by 12."""


class Sec(Section):
    """Seed, expand and constrain (Kolesnikov and Lampert 2016).

    Attributes:
        name: which loss.
        kernels: of the CRF that constrains, in pixels of the crop.
    """

    name: Literal["sec"]
    kernels: CRFSettings = KERNELS


class Dsrg(Section):
    """Deep seeded region growing (Huang et al. 2018).

    Attributes:
        name: which loss.
        foreground: how sure of a class the network has to be for its seeds to grow there.
        background: the same for the background.
        kernels: of the CRF, in pixels of the crop.
    """

    name: Literal["dsrg"]
    foreground: Share = 0.85
    background: Share = 0.99
    kernels: CRFSettings = KERNELS


class Deeplab(PhotoTraining):
    """Training of the segmentation network.

    Where `of` names a second step, masks of another origin, a pixel is learned where both agree:
    what two ways came to is right more often.

    Attributes:
        batch_size: photos a step, two at least in each of its parts.
        validation_fraction: the share of the photos that it is judged by: the epoch that is kept is
            the best by what it would learn of them.
        validation_masks: a folder of the same photos' real masks, to judge by instead: the one use
            of real masks before evaluation, and only where a recipe names them.
        loss: by default the cross-entropy; or one that learns from seeds and the photos' tags
            (`weakseg.training.seed_losses`), whose masks are mostly 255.
    """

    batch_size: Annotated[int, Field(ge=2, le=MOST_EXAMPLES)]
    validation_fraction: Share = 0.1
    validation_masks: FilePath | None = None
    loss: Annotated[Sec | Dsrg, Field(discriminator="name")] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} leaves one photo of batch_size {self.batch_size} to "
                "a part, and BatchNorm needs two"
            )
        return self

    @model_validator(mode="after")
    def _whole_photos(self) -> Self:
        if isinstance(self.loss, Sec) and self.long_side[1] > self.crop:
            raise ValueError(
                f"loss sec expects each tag in what is cut from the photo, so long_side "
                f"{list(self.long_side)} must end at the crop, {self.crop}, or below"
            )
        return self


def run(step: Step, tools: Tools) -> None:
    """Write `segmenter.safetensors`, the best by mIoU, and `scores.json`.

    The mIoU is that against held-out masks of the step that the network learns from, which are
    pseudo masks, unless the recipe names a folder of real ones. A training that was cut off goes on
    from its last whole epoch; till it has ended, `best-so-far.safetensors` is the network
    of its best epoch, in the same form.

    Raises:
        WeaksegError: too few photos, or no mask of those held out in the recipe's folder.
    """
    folder, settings, photos = step.folder, step.settings, tools.photos
    if made(folder, FIGURES, SEGMENTER):
        return
    import lightning as L

    from weakseg.methods.fit import Loop, MaskedExamples, SeededExamples, fill_of, mask_pairs
    from weakseg.methods.networks import SegmenterCard, build_segmenter, write_segmenter
    from weakseg.networks.segmenter import Segmenter

    kept, held_out = balanced_split(
        photos.samples, photos.balance, settings.validation_fraction, step.seed
    )
    if len(kept) < 2:
        raise WeaksegError(
            "A segmentation network needs three photos at least, one of them to be judged by. Tag "
            "more photos."
        )
    judges, judged_by = _judges(step, held_out, photos)
    card = SegmenterCard(settings.backbone, photos.classes, step.long_side, settings.precision)
    best_so_far = folder / BEST_SO_FAR
    L.seed_everything(step.seed, verbose=False)
    network = build_segmenter(settings.backbone, len(photos.classes))
    assert isinstance(network, Segmenter)
    pairs = mask_pairs(kept, _folders(step), photos.reviewed)
    examples = MaskedExamples(pairs, judges, settings, step.seed, fill_of(network))
    if settings.loss:
        examples = SeededExamples(**vars(examples), samples=kept, classes=photos.classes)
    keeper = _BestKeeper(best_so_far, card)
    loop = Loop.of(step, tools, examples, monitor="miou", on_best=keeper)
    try:
        epochs = loop.fit(_training(network, settings))
    except BaseException:
        if best_so_far.exists():
            tools.progress.say(
                f"{step.name}: the training has stopped; till it goes on, weakseg predict "
                f"{folder.parent} uses its best epoch so far"
            )
        raise
    write_json(folder / FIGURES, {"miou_against": judged_by, "epochs": epochs})
    write_segmenter(folder / SEGMENTER, network.state_dict(), card)
    remove(best_so_far)
    loop.forget()


def _training(network: "Segmenter", settings: Deeplab) -> "SegmentationTraining":
    from weakseg.training.seed_losses import SeedTraining, dsrg_losses, sec_losses
    from weakseg.training.segmentation import SegmentationTraining

    common, loss = (network, settings.optimizer, settings.decay_power), settings.loss
    if loss is None:
        return SegmentationTraining(*common)
    if isinstance(loss, Sec):
        return SeedTraining(*common, sec_losses, loss.kernels)
    growing = partial(dsrg_losses, foreground=loss.foreground, background=loss.background)
    return SeedTraining(*common, growing, loss.kernels)


def _judges(step: Step, held_out: Sequence[Sample], photos: Photos) -> "tuple[list[MaskPair], str]":
    """Photos and masks that choose the epoch, and what masks they are."""
    from weakseg.methods.fit import mask_pairs

    settings = step.settings
    if settings.validation_masks is None:
        pairs = mask_pairs(held_out, _folders(step), photos.reviewed)
        return pairs, f"held-out masks of {' and '.join(one.name for _, one in step.inputs)}"
    folder = Path(settings.validation_masks)
    pairs = [(photo, mask) for photo, mask in mask_pairs(held_out, [folder]) if mask[0].is_file()]
    for photo, (mask,) in pairs:
        if fault := mask_fault(MaskFile.of(mask), photo_size(photo), len(photos.classes)):
            raise WeaksegError(f"{step.name}.validation_masks: {fault}")
    if not pairs:
        raise WeaksegError(
            f"{step.name}.validation_masks: {folder} has the mask of no photo held out, of which "
            f"there are {len(held_out)} (the first: {held_out[0].id}.png)."
        )
    return pairs, f"real masks of {len(pairs)} photos held out, in {folder}"


def _folders(step: Step) -> list[Path]:
    return [given.folder for _, given in step.inputs]


@dataclass(frozen=True)
class _BestKeeper:
    path: Path
    card: "SegmenterCard"

    def __call__(self, state: dict[str, "Tensor"]) -> None:
        from weakseg.methods.networks import write_segmenter

        prefix = "network."
        tensors = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        write_segmenter(self.path, tensors, self.card)


def _check(step: Step, photos: Photos, device: Any) -> None:
    from weakseg.methods.networks import build_segmenter, check_memory

    agreeing = step.get("agreeing")
    if agreeing and agreeing.tags is not step.tags:
        raise WeaksegError(
            f"{step.name}: {agreeing.name} sees other tags than {step['masks'].name}, so that "
            "their masks can't agree."
        )
    network = build_segmenter(step.settings.backbone, classes=1)
    check_memory(step.name, network, step.settings, len(photos.samples), device)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return File(FIGURES), File(SEGMENTER)


def _protocol(step: Step) -> dict[str, Any]:
    loss, agreeing = step.settings.loss, step.get("agreeing")
    return {
        "masks": step["masks"].name,
        **({"agreeing": agreeing.name} if agreeing else {}),
        **({"loss": loss.name} if loss else {}),
    }


KIND = Kind(
    name="deeplab",
    summary="DeepLabv3+ over any backbone, learned from masks",
    settings=Deeplab,
    gives=frozenset({Artefact.SEGMENTER}),
    takes=(
        Slot("masks", frozenset({Artefact.MASKS})),
        Slot("agreeing", frozenset({Artefact.MASKS}), optional=True),
    ),
    role="network",
    run=run,
    learns_masks=True,
    files=_files,
    draws=True,
    check=_check,
    protocol=_protocol,
)
