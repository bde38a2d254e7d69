"""Train IRNet on pseudo masks, and let activations walk between the class boundaries it finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, shrink
from weakseg.data.masks import MAX_OBJECTS, read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes, write_json, written_by_run
from weakseg.localize.seeds import mask_from_cam
from weakseg.names import FIGURES, INSTANCES, IRN
from weakseg.networks.fused import fuse
from weakseg.networks.irnet import PhotoRelations, relate
from weakseg.recipe import Irn, Precision
from weakseg.refine.instances import instance_map, split_by_instance
from weakseg.refine.random_walk import RandomWalkSettings, random_walk, scale_to_peak
from weakseg.stages import localize, refine
from weakseg.stages.base import (
    Context,
    PhotoTask,
    made,
    map_photos,
    maps_of,
    masks_of,
    naming,
    network_executor,
    together,
)
from weakseg.stages.fit import Loop
from weakseg.stages.networks import build_irnet, compute_type, read_irnet, write_irnet
from weakseg.training.irnet import IRNetTraining, set_mean_displacement
from weakseg.training.segmentation import MaskedExample, MaskedPhotos

LABELS = "irn-labels"
NETWORK = "irnet"
IRN_CRF = "irn+crf"
IRNET = "irnet.safetensors"
MAPS = ".safetensors"
outputs = together(maps_of(IRN, "maps", MAPS), masks_of(IRN))

_MEAN_OF = 100  # photos: their mean displacement is steady long before


def run_labels(context: Context) -> None:
    """Write `irn-labels/ID.png`: what IRNet learns from, 255 where the two masks disagree."""
    make = _Labeller(
        context.stage_folder(localize.NAME),
        context.stage_folder(LABELS),
        _settings(context),
        context.recipe.data.long_side,
    )
    map_photos(context, LABELS, make)


def train(context: Context) -> None:
    """Write `irnet/irnet.safetensors` and `irnet/scores.json`: the losses of each epoch.

    A training that was cut off goes on from its last whole epoch, with the same result.
    """
    folder, settings = context.stage_folder(NETWORK), _settings(context)
    if made(folder, FIGURES, IRNET):
        return
    samples = _confident(context, settings.min_confidence)
    masks = context.stage_folder(LABELS if settings.from_cam else settings.start)
    pairs = [(sample.image, masks / f"{sample.id}.png") for sample in samples]
    L.seed_everything(context.recipe.seed, verbose=False)
    network = build_irnet(settings.backbone)
    fill = tuple(network.backbone.mean.flatten().tolist())
    loop = Loop(
        name=NETWORK,
        section="irn",
        folder=folder,
        examples=_Masked(pairs, settings, context.recipe.seed, fill),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=context.recipe.seed,
        precision=settings.precision,
        device=context.device,
        executor=context.executor,
        progress=context.progress,
    )
    epochs = loop.fit(IRNetTraining(network, settings.optimizer, settings.decay_power))
    network.to(context.device)
    spread = samples[:: -(-len(samples) // _MEAN_OF)]
    set_mean_displacement(network, _images(spread, context.recipe.data.long_side))
    write_json(folder / FIGURES, {"photos": len(samples), "epochs": epochs})
    write_irnet(folder / IRNET, network, settings.backbone)


def run(context: Context) -> None:
    """Write `irn/ID.png` and `irn/ID.safetensors`: `maps` (K, h, w), walked, with a peak of 1."""
    settings, start = _settings(context), context.stage_folder(localize.NAME)
    make = _Walker(
        _relater(context),
        _Cams(start) if settings.from_cam else _OneHot(context.stage_folder(settings.start)),
        context.stage_folder(IRN),
        settings.walk,
        settings.threshold,
    )
    map_photos(context, IRN, make, (MAPS, ".png"), network_executor(context), by_size=True)


def run_crf(context: Context) -> None:
    """Write `irn+crf/ID.png`: the CRF over the walked maps and their constant background."""
    crf = context.recipe.irn_crf
    assert crf is not None
    make = refine.CrfRefiner(
        _WalkedScores(context.stage_folder(IRN), _settings(context).threshold),
        context.stage_folder(IRN_CRF),
        crf,
        context.recipe.data.long_side,
    )
    map_photos(context, IRN_CRF, make)


def run_instances(context: Context) -> None:
    """Write `instances/ID.png`: the objects of `irn/ID.png`, 1 to M, each of one class."""
    folder, masks = context.stage_folder(INSTANCES), context.stage_folder(IRN)
    make = _Splitter(_relater(context), masks, folder)
    map_photos(context, INSTANCES, make, executor=network_executor(context), by_size=True)


def _settings(context: Context) -> Irn:
    assert context.recipe.irn is not None
    return context.recipe.irn


def _confident(context: Context, least: float) -> list[Sample]:
    """The photos of which the classifier confirms every tag."""
    folder = context.stage_folder(localize.NAME)
    samples = [
        sample
        for sample in context.masked_samples()
        if not least or (localize.read_localization(folder, sample.id).confidence > least).all()
    ]
    if not samples:
        raise WeaksegError(
            f"The classifier is sure of the tags of no photo: none has a confidence over {least}. "
            "Lower irn.min_confidence, or train the classifier longer."
        )
    return samples


@dataclass(frozen=True)
class _Labeller:
    source: Path
    folder: Path
    settings: Irn
    long_side: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            cam = localize.read_localization(self.source, task.id).cam
            sure, lenient = (
                self._labels(photo, cam, threshold, task)
                for threshold in (
                    self.settings.foreground_threshold,
                    self.settings.background_threshold,
                )
            )
            sure[(sure == 0) & (lenient != 0)] = -1
            write_mask(self.folder / f"{task.id}.png", localize.class_mask(sure, task.class_ids))

        return work

    def _labels(
        self, photo: NDArray[np.uint8], cam: NDArray[np.float32], threshold: float, task: PhotoTask
    ) -> NDArray[np.int16]:
        assert self.settings.crf is not None
        scores = refine.against_background(cam, threshold)
        found = refine.crf_probabilities(photo, scores, self.settings.crf, task)
        labels: NDArray[np.int16] = found.argmax(axis=0).astype(np.int16)
        return labels


@dataclass(frozen=True)
class _Masked:
    pairs: Sequence[tuple[Path, Path]]
    settings: Irn
    seed: int
    fill: tuple[float, ...]

    def __call__(self, epoch: int | None) -> TorchDataset[MaskedExample]:
        return MaskedPhotos(
            self.pairs,
            self.settings.long_side,
            self.settings.crop,
            self.fill,
            self.settings.augmentation,
            self.seed,
            epoch,
        )


def _images(samples: Sequence[Sample], long_side: int) -> Iterator[Tensor]:
    for sample in samples:
        photo = torch.from_numpy(shrink(read_photo(sample.image), long_side))
        yield photo.permute(2, 0, 1).unsqueeze(0).float() / 255


@dataclass(frozen=True)
class _Cams:
    folder: Path

    def __call__(self, task: PhotoTask, size: tuple[int, int]) -> NDArray[np.float32]:
        return localize.read_localization(self.folder, task.id).cam


@dataclass(frozen=True)
class _OneHot:
    folder: Path

    def __call__(self, task: PhotoTask, size: tuple[int, int]) -> NDArray[np.float32]:
        """A mask's share of each class in every cell of the grid."""
        mask = read_mask(self.folder / f"{task.id}.png")
        ids = np.array(task.class_ids, np.uint8).reshape(-1, 1, 1)
        shares = F.adaptive_avg_pool2d(torch.from_numpy(mask == ids).float(), size)
        return np.asarray(shares.numpy())


@dataclass(frozen=True)
class _Relater:
    """IRNet's relations of a photo."""

    network: Path
    precision: Precision
    long_side: int
    device: str

    def __call__(self) -> Callable[[PhotoTask], PhotoRelations]:
        device = torch.device(self.device)
        network = read_irnet(self.network, device)
        dtype = compute_type(self.precision, device)
        network.backbone = fuse(network.backbone, dtype)

        def work(task: PhotoTask) -> PhotoRelations:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                return relate(network, photo)

        return work


def _relater(context: Context) -> _Relater:
    return _Relater(
        context.stage_folder(NETWORK) / IRNET,
        _settings(context).precision,
        context.recipe.data.long_side,
        str(context.device),
    )


@dataclass(frozen=True)
class _Walker:
    relater: _Relater
    start: Callable[[PhotoTask, tuple[int, int]], NDArray[np.float32]]
    folder: Path
    walk: RandomWalkSettings
    threshold: float

    def __call__(self) -> Callable[[PhotoTask], None]:
        relations = self.relater()
        device = torch.device(self.relater.device)
        gpu = device if device.type == "cuda" else None

        def work(task: PhotoTask) -> None:
            boundary = relations(task).boundary
            height, width = boundary.shape
            start = self.start(task, (height, width))
            with naming(task):
                maps = scale_to_peak(random_walk(start, boundary, self.walk, gpu))
            content = safetensors.numpy.save({"maps": maps})
            write_bytes(self.folder / f"{task.id}{MAPS}", content)
            localize.write_labels(
                self.folder / f"{task.id}.png",
                maps,
                task,
                lambda band: mask_from_cam(band, self.threshold),
            )

        return work


@dataclass(frozen=True)
class _Splitter:
    relater: _Relater
    masks: Path
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], str | None]:
        relations = self.relater()

        def work(task: PhotoTask) -> str | None:
            with naming(task):
                instances = instance_map(relations(task).displacement)
            mask = read_mask(self.masks / f"{task.id}.png")
            objects, left_out = split_by_instance(mask, instances)
            write_mask(self.folder / f"{task.id}.png", objects)
            if not left_out:
                return None
            return f"{task.id}: left out {left_out} objects, all but the {MAX_OBJECTS} largest"

        return work


@dataclass(frozen=True)
class _WalkedScores:
    folder: Path
    threshold: float

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        def work(task: PhotoTask) -> NDArray[np.float32]:
            path = self.folder / f"{task.id}{MAPS}"
            with written_by_run(path):
                maps = safetensors.numpy.load_file(path)["maps"]
            return refine.against_background(maps, self.threshold)

        return work
