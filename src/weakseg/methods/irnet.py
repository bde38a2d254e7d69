"""Train IRNet on masks of any step, 255 ignored (Ahn et al. 2019)."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.files import write_json
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Slot, Step, Tools, made
from weakseg.methods.maps import open_maps
from weakseg.methods.settings import Fraction, PhotoTraining
from weakseg.names import FIGURES

if TYPE_CHECKING:
    from torch import Tensor

    from weakseg.networks.irnet import PhotoRelations

IRNET = "irnet.safetensors"
IRNET_SLOT = Slot("irnet", frozenset({Artefact.IRNET}))

_MEAN_OF = 100  # photos: their mean displacement is steady long before


class Irnet(PhotoTraining):
    """Training of IRNet: `lr` is the boundary branch's rate, `head_lr` the displacement branch's.

    Attributes:
        min_confidence: photos of which a tag has this confidence or less, by the maps that `of`
            names second, are not learned from.
    """

    min_confidence: Fraction = 0


def run(step: Step, tools: Tools) -> None:
    """Write `irnet.safetensors` and `scores.json`: the losses of each epoch.

    A training that was cut off goes on from its last whole epoch, with the same result.
    """
    if made(step.folder, FIGURES, IRNET):
        return
    import lightning as L

    from weakseg.methods.fit import Loop, MaskedExamples, fill_of, mask_pairs
    from weakseg.methods.networks import build_irnet, write_irnet
    from weakseg.training.irnet import IRNetTraining, set_mean_displacement

    settings = step.settings
    samples = _confident(step, tools.photos)
    L.seed_everything(step.seed, verbose=False)
    network = build_irnet(settings.backbone)
    pairs = mask_pairs(samples, [step["masks"].folder], tools.photos.reviewed)
    examples = MaskedExamples(pairs, pairs, settings, step.seed, fill_of(network))
    loop = Loop.of(step, tools, examples)
    epochs = loop.fit(IRNetTraining(network, settings.optimizer, settings.decay_power))
    network.to(tools.device)
    spread = samples[:: -(-len(samples) // _MEAN_OF)]
    set_mean_displacement(network, _images(step, map(tools.photos.task, spread)))
    write_json(step.folder / FIGURES, {"photos": len(samples), "epochs": epochs})
    write_irnet(step.folder / IRNET, network, settings.backbone)
    loop.forget()


def _confident(step: Step, photos: Photos) -> list[Sample]:
    """The photos of which the classifier confirms every tag."""
    least, maps = step.settings.min_confidence, step.get("confidence")
    if not least or maps is None:
        return list(photos.samples)
    read = open_maps(maps, "confidence")

    def is_sure(sample: Sample) -> bool:
        confidence = read(photos.task(sample)).confidence
        assert confidence is not None
        return bool((confidence > least).all())

    samples = list(filter(is_sure, photos.samples))
    if not samples:
        raise WeaksegError(
            f"The classifier is sure of the tags of no photo: none has a confidence over {least}. "
            f"Lower {step.name}.min_confidence, or train the classifier longer."
        )
    return samples


def open_relations(step: Step) -> Callable[[PhotoTask], "PhotoRelations"]:
    """What gives a photo's relations by the IRNet that a step reads, in its own `precision`."""
    import torch

    from weakseg.methods.networks import prepare, read_irnet
    from weakseg.networks.irnet import relate

    device = torch.device(step.device)
    file = step["irnet"].folder / IRNET
    network, computing = prepare(read_irnet(file, device), step.settings.precision, device)

    def read(task: PhotoTask) -> "PhotoRelations":
        with computing():
            return relate(network, step.photo(task))

    return read


def _images(step: Step, tasks: Iterable[PhotoTask]) -> Iterator["Tensor"]:
    import torch

    for task in tasks:
        photo = torch.from_numpy(step.photo(task))
        yield photo.permute(2, 0, 1).unsqueeze(0).float() / 255


def _check(step: Step, photos: Photos, device: Any) -> None:
    maps = step.get("confidence")
    if step.settings.min_confidence and not (maps and maps.has_confidence):
        raise WeaksegError(
            f"{step.name}.min_confidence needs a classifier's confidence: name a step of kind cam "
            "second in `of`."
        )
    from weakseg.methods.networks import build_irnet, check_memory

    network = build_irnet(step.settings.backbone)
    check_memory(step.name, network, step.settings, len(photos.samples), device)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return File(FIGURES), File(IRNET)


KIND = Kind(
    name="irnet",
    summary="IRNet: class boundaries and displacements, learned from masks (Ahn et al. 2019)",
    settings=Irnet,
    gives=frozenset({Artefact.IRNET}),
    takes=(
        Slot("masks", frozenset({Artefact.MASKS})),
        Slot("confidence", frozenset({Artefact.MAPS}), optional=True),
    ),
    role="network",
    run=run,
    learns_masks=True,
    files=_files,
    draws=True,
    check=_check,
)
