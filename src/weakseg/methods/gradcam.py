"""Class activation maps by gradients: of any of a classifier's layers, and under any head."""

from threading import Lock
from typing import Annotated, Any, Literal

from pydantic import Field

from weakseg.errors import WeaksegError, shortened
from weakseg.localize.settings import Merging, Method
from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.classifier import CLASSIFIER, backbone_of
from weakseg.methods.settings import Scales, Section


class GradCam(Section):
    """CAMs by gradients over several scales.

    Attributes:
        method: how gradients weigh activations; see `weakseg.localize.gradcam`.
        layer: the index of one of the backbone's stages, fine to coarse, from 0, or the `final`
            map, which is pooled.
        scales: factors on the photo's size, at which the classifier looks at it.
        merging: how the maps of the scales become one.
    """

    method: Method = "grad-cam"
    layer: Annotated[int, Field(ge=0)] | Literal["final"] = "final"
    scales: Scales
    merging: Merging = Merging()


def work(step: Step) -> PhotoWork:
    """Maps without a background, in float32."""
    import torch

    from weakseg.localize.gradcam import localize_by_gradients
    from weakseg.methods.networks import read_classifier
    from weakseg.networks.cpu.depthwise import use_fast_gradients

    settings, device = step.settings, torch.device(step.device)
    network = read_classifier(step["classifier"].folder / CLASSIFIER, device).requires_grad_(False)
    if device.type == "cpu":
        use_fast_gradients(network)
    outputs = network.outputs()
    stage = None if settings.layer == "final" else settings.layer
    alone = Lock()  # on a GPU two threads share the network, of which one may hold the layer

    def compute(task: PhotoTask) -> PhotoMaps:
        photo = step.photo(task)
        with alone:
            cam = localize_by_gradients(
                network,
                photo,
                [outputs[tag] for tag in task.sample.tags],
                settings.scales,
                stage,
                settings.method,
                settings.merging,
            )
        return PhotoMaps(cam)

    return compute


def _check(step: Step, photos: Photos, device: Any) -> None:
    layer, section = step.settings.layer, backbone_of(step["classifier"])
    if layer == "final":
        return
    import torch

    from weakseg.localize.gradcam import gradient_maps
    from weakseg.methods.networks import build_classifier

    network = build_classifier(section, 1).eval()
    strides = [stage.stride for stage in network.backbone.stages]
    if layer >= len(strides):
        raise WeaksegError(
            f"{step.name}.layer is {layer}; {section.name} has the stages 0 to "
            f"{len(strides) - 1}, with strides {strides}, and final."
        )
    try:
        module = network.backbone.stage_module(layer)
        images = torch.zeros(1, 3, 64, 64)
        maps = gradient_maps(network, module, images, [0], step.settings.method)
        if maps.shape[2] != maps.shape[3]:
            raise ValueError("its maps of a square image are not square")  # a Swin's are (h, w, D)
    except Exception as error:  # each of a thousand models has its own ways to fail
        raise WeaksegError(
            f"{step.name}.layer is {layer}, of which {section.name} gives no gradients "
            f"({shortened(str(error), 150)}). Choose another stage, or final."
        ) from error


KIND = Kind(
    name="gradcam",
    summary="Grad-CAM, HiResCAM or LayerCAM of a layer of a classifier",
    settings=GradCam,
    gives=frozenset({Artefact.MAPS}),
    takes=(Slot("classifier", frozenset({Artefact.CLASSIFIER})),),
    role="seed",
    work=work,
    network=True,
    check=_check,
)
