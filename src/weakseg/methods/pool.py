"""Pooled features of every photo, once, for classifiers on a backbone that is not trained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Step, Tools, map_photos
from weakseg.methods.maps import MAPS
from weakseg.methods.settings import BackboneSection, Precision, Section


class Pool(Section):
    """`precision` is what the backbone computes in."""

    backbone: BackboneSection
    precision: Precision = "32-true"


def run(step: Step, tools: Tools) -> None:
    """Write `ID.safetensors`: `pooled` (2, D), of the whole photo and its mirror image.

    A classifier on a frozen backbone sees nothing but these; the head is then trained in seconds.
    """

    def is_done(sample: Sample) -> bool:
        return (step.folder / f"{sample.id}{MAPS}").exists()

    map_photos(tools, step.name, _Pooler(step), is_done, tools.network, by_size=True)


def _files(step: Step, photos: Photos) -> Iterator[File]:
    return (File(f"{sample.id}{MAPS}", {"pooled": (2, None)}) for sample in photos.samples)


def _check(step: Step, photos: Photos, device: Any) -> None:
    from weakseg.methods.networks import build_classifier

    build_classifier(step.settings.backbone, 1)


def _draws(settings: Pool) -> bool:
    return settings.backbone.weights == "none"


@dataclass(frozen=True)
class _Pooler:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], None]:
        import safetensors.torch
        import torch

        from weakseg.methods.networks import build_classifier, prepare
        from weakseg.networks.cam_classifier import with_mirror_image
        from weakseg.training.pooled import POOLED

        step, settings = self.step, self.step.settings
        device = torch.device(step.device)
        torch.manual_seed(step.seed)  # without weights: the backbone that the classifier will have
        network = build_classifier(settings.backbone, classes=1)
        network, computing = prepare(network, settings.precision, device)

        @torch.inference_mode()
        def work(task: PhotoTask) -> None:
            with computing():
                pooled = network.pool(with_mirror_image(step.photo(task), device)).float().cpu()
            if not pooled.isfinite().all():
                raise WeaksegError(
                    f"{task.sample.image}: its features hold NaN or infinity, as they can in 16 "
                    f"bits. Set {step.name}.precision to 32-true."
                )
            content = safetensors.torch.save({POOLED: pooled})
            write_bytes(step.folder / f"{task.id}{MAPS}", content)

        return work


KIND = Kind(
    name="pool",
    summary="a frozen backbone's pooled features of every photo, for classifiers to learn from",
    settings=Pool,
    gives=frozenset({Artefact.FEATURES}),
    run=run,
    files=_files,
    photos="all",
    draws=_draws,
    network=True,
    check=_check,
)
