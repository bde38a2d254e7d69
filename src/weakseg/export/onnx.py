"""A run's segmentation network as one ONNX file, for any runtime of ONNX.

It takes images of any number and size; what comes before and behind it is in its metadata
(`weakseg.segment.onnx.OnnxCard`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weakseg.data.masks import VOC_PALETTE
from weakseg.engine.predict import find_network, usual_settings
from weakseg.errors import WeaksegError
from weakseg.export.base import Exporter, Job

if TYPE_CHECKING:
    from weakseg.networks.segmenter import Segmenter
    from weakseg.segment.onnx import OnnxModel

_PROBES = ((2, 65, 97), (1, 48, 33))
"""Batches that the file is tried on: their number, and odd sides."""
_CLOSE = 1e-3
"""What logits may differ by, of the largest one: sums are in another order."""


def write(job: Job, file: Path) -> None:
    """The network of the step that was asked for, or else the last."""
    export_onnx(job.run.folder, file, job.step)


def export_onnx(model: Path, out: Path, step: str | None = None) -> None:
    """Write the segmentation network of a run, and try it beside PyTorch's.

    Args:
        model: a run's folder, or a segmentation network's file.
        out: the file.
        step: which network, if the run has several; by default the last.

    Raises:
        WeaksegError: there is no such network, or none that ONNX can express.
    """
    import onnx
    import torch

    from weakseg.methods.networks import read_segmenter
    from weakseg.networks.onnx import onnx_graph
    from weakseg.networks.segmenter import Segmenter
    from weakseg.segment.onnx import OnnxCard, OnnxModel

    network, card = read_segmenter(find_network(model, step), torch.device("cpu"))
    if not isinstance(network, Segmenter):
        raise WeaksegError(
            f"The network of {step or model} is a pixel head, which sees a photo twice and at "
            "several sizes: ONNX gets DeepLabv3+ alone. Name such a step with --step."
        )
    views = usual_settings(model)
    described = OnnxCard(
        classes=card.classes,
        palette=tuple(map(tuple, VOC_PALETTE[: len(card.classes) + 1].tolist())),
        stride=network.backbone.final.stride,
        long_side=card.long_side,
        tta_scales=views.scales,
        tta_flip=views.flip,
    )
    graph = onnx.load_from_string(onnx_graph(network))
    onnx.helper.set_model_props(graph, described.as_metadata())
    onnx.checker.check_model(graph)
    out.write_bytes(graph.SerializeToString())
    _compare(network, OnnxModel(out))


def _compare(network: "Segmenter", exported: "OnnxModel") -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    for count, height, width in _PROBES:
        images = torch.rand(count, 3, height, width, generator=generator)
        with torch.inference_mode():
            true = network(images).numpy()
        found = exported.logits(images.numpy())
        if found.shape != true.shape or np.abs(found - true).max() > _CLOSE * np.abs(true).max():
            raise WeaksegError(
                f"The ONNX file gives other values than the network, of images of {height} by "
                f"{width}. Another backbone may do; please report this one."
            )


EXPORTER = Exporter(
    name="onnx",
    summary="ONNX: the network in one file, for any program that reads them; weakseg predict does",
    write=write,
    file="model.onnx",
)
