"""CAMs and shallow features of every photo, by the run's classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy
import torch

from weakseg.data.images import read_photo, shrink
from weakseg.files import write_bytes
from weakseg.localize.cam import localize
from weakseg.localize.grid import Localization, as_levels
from weakseg.networks.fused import fuse
from weakseg.recipe import Localize
from weakseg.stages import classify
from weakseg.stages.base import Context, PhotoTask, map_photos, naming, network_executor
from weakseg.stages.localize import NAME, SUFFIX, Localizations
from weakseg.stages.networks import compute_type, read_classifier


def run(context: Context) -> None:
    """Write `localize/ID.safetensors`: `cam` (K, h, w), `features` (D, h, w), `confidence` (K).

    Features are levels, a byte each; see `as_levels`.
    """
    make = _LocalizationWriter(by_network(context), context.stage_folder(NAME))
    map_photos(context, NAME, make, (SUFFIX,), network_executor(context), by_size=True)


def by_network(context: Context) -> Localizations:
    """What the run's classifier finds in a photo."""
    return _Localizer(
        context.stage_folder(classify.NAME) / classify.CLASSIFIER,
        context.recipe.localize,
        context.recipe.data.long_side,
        str(context.device),
    )


@dataclass(frozen=True)
class _Localizer:
    classifier: Path
    settings: Localize
    long_side: int
    device: str

    def __call__(self) -> Callable[[PhotoTask], Localization]:
        device = torch.device(self.device)
        network = read_classifier(self.classifier, device)
        precision = compute_type(self.settings.precision, device)
        network.backbone = fuse(network.backbone, precision)

        def work(task: PhotoTask) -> Localization:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            autocast = torch.autocast(device.type, precision, enabled=precision is not None)
            with naming(task), autocast:
                found = localize(
                    network,
                    photo,
                    [class_id - 1 for class_id in task.class_ids],
                    self.settings.scales,
                    self.settings.feature_stages,
                    self.settings.feature_scales,
                )
                return found._replace(features=as_levels(found.features))

        return work


@dataclass(frozen=True)
class _LocalizationWriter:
    localizations: Localizations
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], None]:
        localization = self.localizations()

        def work(task: PhotoTask) -> None:
            content = safetensors.numpy.save(localization(task)._asdict())
            write_bytes(self.folder / f"{task.id}{SUFFIX}", content)

        return work
