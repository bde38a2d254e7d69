"""SIPE: a classifier whose CAMs agree with image-specific ones (Chen et al. 2022)."""

from typing import Annotated, Any

from pydantic import Field

from weakseg.methods.base import Artefact, File, Kind, Photos, Step, Tools, made
from weakseg.methods.classifier import CLASSIFIER, TAGS, TaggedExamples, learn, part
from weakseg.methods.settings import PhotoTraining, Share
from weakseg.names import FIGURES

SIPE = "sipe.safetensors"


class Sipe(PhotoTraining):
    """Training of a classifier and of side convolutions on its backbone; both have `head_lr`.

    Attributes:
        validation_fraction: the share of the photos that it is judged by: the best epoch by F1 is
            kept.
        consistency: the weight of the loss of the CAMs beside that of the tags.
        gradient_norm: what the gradient's norm is cut to.
        background_factor: what the background counts where seeds are told, in the training and in
            the IS-CAMs that it is for.
        normalized: whether side convolutions see a stage's channels at mean 0 and deviation 1, as a
            frozen backbone needs.
    """

    validation_fraction: Share = 0.1
    consistency: Annotated[float, Field(ge=0, le=100)] = 1.0
    gradient_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    background_factor: Annotated[float, Field(gt=0, le=10)] = 0.5
    normalized: bool = False


def run(step: Step, tools: Tools) -> None:
    """Write `classifier.safetensors`, `sipe.safetensors` and `scores.json`.

    A training that was cut off goes on from its last whole epoch, with the same result.
    """
    if made(step.folder, FIGURES, CLASSIFIER, SIPE):
        return
    import lightning as L

    from weakseg.methods.fit import Loop, fill_of
    from weakseg.methods.networks import build_classifier, write_classifier, write_sides
    from weakseg.networks.sipe import Sides
    from weakseg.training.sipe import SipeTraining

    settings, classes = step.settings, tools.photos.learned
    L.seed_everything(step.seed, verbose=False)
    network = build_classifier(settings.backbone, len(classes))
    sides = Sides(network.backbone.stages, settings.normalized)
    training = SipeTraining(
        network,
        sides,
        settings.optimizer,
        settings.decay_power,
        settings.consistency,
        settings.gradient_norm,
        settings.background_factor,
    )
    kept, held_out = part(step, tools, tools.photos.samples)
    fill = fill_of(network)
    examples = TaggedExamples(kept, held_out, classes, settings, step.seed, fill, covered=True)
    loop = Loop.of(step, tools, examples, monitor="f1")
    learn(loop, training, classes, step.folder)
    write_sides(step.folder / SIPE, sides)
    write_classifier(step.folder / CLASSIFIER, network, settings.backbone, "linear", classes)
    loop.forget()


def _check(step: Step, photos: Photos, device: Any) -> None:
    from weakseg.methods.networks import build_classifier, check_memory

    network = build_classifier(step.settings.backbone, 1)
    check_memory(step.name, network, step.settings, len(photos.samples), device)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return File(FIGURES), File(SIPE), File(CLASSIFIER)


KIND = Kind(
    name="sipe",
    summary="a classifier taught to agree with image-specific prototypes (Chen et al. 2022)",
    settings=Sipe,
    gives=frozenset({Artefact.CLASSIFIER, Artefact.SIDES}),
    takes=(TAGS,),
    role="network",
    version=2,
    run=run,
    files=_files,
    photos="all",
    draws=True,
    check=_check,
)
