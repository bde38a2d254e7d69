"""A frozen backbone's features of every photo, once: what heads learn from and CAMs are made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from pydantic import Field

from weakseg.data.dataset import Sample
from weakseg.data.images import photo_size, shrunk_size
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes, written_by_run
from weakseg.grid import GRID_STRIDE, grid_size, upsample
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Step, Tools, map_photos
from weakseg.methods.maps import MAPS, open_maps
from weakseg.methods.settings import BackboneSection, Precision, Scale, Section
from weakseg.names import stage

if TYPE_CHECKING:
    from torch import Tensor

    from weakseg.networks.backbones import Stage


class Features(Section):
    """Pooled features, and the maps that are kept beside them.

    Without maps a photo takes a few kilobytes; with four scales and the stages of
    EfficientNet-Lite1 some 2 MB.

    Attributes:
        backbone: a frozen one: `frozen_stages: -1`.
        scales: those of the final map, factors on the photo's size.
        stages: indices of the backbone's stages, fine to coarse, from 0, at the photo's own size.
        precision: what the backbone computes in.
    """

    backbone: BackboneSection
    scales: tuple[Scale, ...] = Field(default=(), max_length=16)
    stages: tuple[Annotated[int, Field(ge=0)], ...] = ()
    precision: Precision = "32-true"


def run(step: Step, tools: Tools) -> None:
    """Write `ID.safetensors` of every photo; see `weakseg.networks.features.feature_maps`."""

    def is_done(sample: Sample) -> bool:
        return (step.folder / f"{sample.id}{MAPS}").exists()

    map_photos(tools, step.name, _Maker(step), is_done, tools.network, by_size=True)


def open_tensors(step: Step, *names: str) -> Callable[[PhotoTask], list[NDArray[Any]]]:
    """What reads some of the tensors that a step of this kind keeps of a photo."""

    def read(task: PhotoTask) -> list[NDArray[Any]]:
        path = step.folder / f"{task.id}{MAPS}"
        with written_by_run(path), safetensors.safe_open(path, "numpy") as file:
            return [file.get_tensor(name) for name in names]

    return read


def open_levels(step: Step, *names: str) -> Callable[[PhotoTask], list[NDArray[Any]]]:
    """What gives a photo's features, maps (D, h, w) of any sizes.

    Args:
        step: of this kind; or one whose maps come with features, whose channels have no scale then.
        names: of tensors that go behind the stages, where it is of this kind.
    """
    if Artefact.FEATURES in step.gives:
        return open_tensors(step, *map(stage, sorted(step.settings.stages)), *names)
    maps = open_maps(step, "features")
    return lambda task: [np.asarray(maps(task).features)]


def open_features(step: Step) -> Callable[[PhotoTask], NDArray[np.float32]]:
    """What gives a photo's features (D, h, w) on its grid (`weakseg.grid`); see `open_levels`."""
    read = open_levels(step)

    def on_grid(task: PhotoTask) -> NDArray[np.float32]:
        size = grid_size(*shrunk_size(*photo_size(task.sample.image), step.long_side))
        return np.concatenate([upsample(level.astype(np.float32), *size) for level in read(task)])

    return on_grid


def open_cells(step: Step, *names: str) -> Callable[[PhotoTask], "Tensor"]:
    """What gives a photo's features (D, h, w) on its cells; see `open_levels`."""
    read = open_levels(step, *names)
    return lambda task: on_cells(read(task), step, task)


def on_cells(levels: Sequence[NDArray[Any]], step: Step, task: PhotoTask) -> "Tensor":
    """Features that a step has of a photo, on its cells (`weakseg.networks.features.cells`)."""
    import torch

    from weakseg.networks.features import cells

    size = shrunk_size(*photo_size(task.sample.image), step.long_side)
    return cells([torch.from_numpy(level) for level in levels], *size)


def check_features(step: Step, given: Step) -> None:
    """Refuse an input that keeps no features.

    Raises:
        WeaksegError: it is such.
    """
    kept = given.settings.stages if Artefact.FEATURES in given.gives else given.has_features
    if not kept:
        raise WeaksegError(
            f"{step.name} needs features, and {given.name} has none: give a step of kind features "
            "its stages (from 0), or one of kind cam feature_stages, and name it in `of`, after "
            "the maps if it is another."
        )


def check_scales(step: Step, given: Step, scales: Sequence[float]) -> None:
    """Refuse features without the final map at some scales.

    Raises:
        WeaksegError: they have not all.
    """
    kept = given.settings.scales
    if missing := sorted(set(scales) - set(kept)):
        raise WeaksegError(
            f"{step.name} needs the final map at the scales {missing}, and {given.name} keeps "
            f"those at {list(kept)}: add them to {given.name}.scales."
        )


def check_stages(key: str, indices: Sequence[int], backbone: BackboneSection) -> None:
    """Refuse indices of stages that a backbone has not.

    Raises:
        WeaksegError: there are such.
    """
    from weakseg.methods.networks import build_classifier

    stages = build_classifier(backbone, 1).backbone.stages
    if missing := [index for index in indices if index >= len(stages)]:
        raise WeaksegError(
            f"{key} has {missing}; {backbone.name} has the stages 0 to {len(stages) - 1}, with "
            f"strides {[stage.stride for stage in stages]}."
        )


@dataclass(frozen=True)
class _Maker:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], None]:
        import safetensors.torch
        import torch

        from weakseg.methods.networks import build_classifier, prepare
        from weakseg.networks.cam_classifier import with_mirror_image
        from weakseg.networks.features import feature_maps

        step, settings = self.step, self.step.settings
        device = torch.device(step.device)
        torch.manual_seed(step.seed)  # without weights: the backbone that the classifier will have
        network = build_classifier(settings.backbone, classes=1)
        network, computing = prepare(network, settings.precision, device)

        def work(task: PhotoTask) -> None:
            try:
                with computing():
                    images = with_mirror_image(step.photo(task), device)
                    found = feature_maps(network.backbone, images, settings.scales, settings.stages)
            except ValueError as error:
                raise WeaksegError(
                    f"{task.sample.image}: {error}. Set {step.name}.precision to 32-true."
                ) from error
            write_bytes(step.folder / f"{task.id}{MAPS}", safetensors.torch.save(found))

        return work


def _files(step: Step, photos: Photos) -> Iterator[File]:
    return (File(f"{sample.id}{MAPS}", {"pooled": (2, None)}) for sample in photos.samples)


def _check(step: Step, photos: Photos, device: Any) -> None:
    check_stages(f"{step.name}.stages", step.settings.stages, step.settings.backbone)


def _draws(settings: Features) -> bool:
    return settings.backbone.weights == "none"


def _cell_bytes(step: Step) -> float:
    from weakseg.methods.networks import build_classifier

    settings = step.settings
    backbone = build_classifier(settings.backbone, 1).backbone
    final = 2 * sum(scale**2 for scale in settings.scales) * _density(backbone.final)
    values: float = final + sum(_density(backbone.stages[index]) for index in settings.stages)
    return 2 * values


def _density(stage: "Stage") -> float:
    """Values of a stage's map in a cell of the grid."""
    return stage.channels * (GRID_STRIDE / stage.stride) ** 2


KIND = Kind(
    name="features",
    summary="a frozen backbone's features of every photo, for heads to learn from and for CAMs",
    settings=Features,
    gives=frozenset({Artefact.POOLED, Artefact.FEATURES}),
    run=run,
    files=_files,
    photos="all",
    draws=_draws,
    network=True,
    cell_bytes=_cell_bytes,
    check=_check,
)
