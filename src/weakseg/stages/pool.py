"""Pooled features of every photo, once, where the backbone is not trained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from weakseg.data.images import read_photo, shrink
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes
from weakseg.networks.cam_classifier import with_mirror_image
from weakseg.networks.fused import fuse
from weakseg.recipe import BackboneSection, Precision
from weakseg.stages.base import Context, PhotoTask, map_photos, network_executor
from weakseg.stages.networks import build_classifier, compute_type
from weakseg.stages.outputs import Output
from weakseg.training.pooled import POOLED

NAME = "pool"
SUFFIX = ".safetensors"


def outputs(context: Context) -> Iterator[Output]:
    """A file of every photo."""
    folder = context.stage_folder(NAME)
    for sample in context.dataset.samples:
        yield Output(folder / f"{sample.id}{SUFFIX}", {POOLED: (2, None)})


def run(context: Context) -> None:
    """Write `pool/ID.safetensors`: `pooled` (2, D), of the whole photo and its mirror image.

    A classifier on a frozen backbone sees nothing but these; the head is then trained in seconds.
    """
    recipe = context.recipe
    make = _Pooler(
        recipe.backbone,
        recipe.data.long_side,
        recipe.classify.precision,
        context.stage_folder(NAME),
        str(context.device),
        recipe.seed,
    )
    map_photos(
        context,
        NAME,
        make,
        (SUFFIX,),
        samples=context.dataset.samples,
        executor=network_executor(context),
        by_size=True,
    )


@dataclass(frozen=True)
class _Pooler:
    backbone: BackboneSection
    long_side: int
    precision: Precision
    folder: Path
    device: str
    seed: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        device = torch.device(self.device)
        torch.manual_seed(self.seed)  # without weights: the backbone that the classifier will have
        network = build_classifier(self.backbone, classes=1).to(device).eval()
        dtype = compute_type(self.precision, device)
        network.backbone = fuse(network.backbone, dtype)

        @torch.inference_mode()
        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                pooled = network.pool(with_mirror_image(photo, device)).float().cpu()
            if not pooled.isfinite().all():
                raise WeaksegError(
                    f"{task.sample.image}: its features hold NaN or infinity, as they can in 16 "
                    "bits. Set classify.precision to 32-true."
                )
            content = safetensors.torch.save({POOLED: pooled})
            write_bytes(self.folder / f"{task.id}{SUFFIX}", content)

        return work
