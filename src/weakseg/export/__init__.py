"""The formats that a run is exported to. A new one is a file here and a line in `EXPORTERS`.

A format from elsewhere is added to `EXPORTERS` before it is asked for.
"""

from weakseg.export import (
    coco,
    coco_panoptic,
    cvat,
    huggingface,
    label_studio,
    onnx,
    voc,
    webdataset,
    yolo,
)
from weakseg.export.base import Exporter

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        coco.EXPORTER,
        coco_panoptic.EXPORTER,
        voc.EXPORTER,
        cvat.EXPORTER,
        label_studio.EXPORTER,
        huggingface.EXPORTER,
        webdataset.EXPORTER,
        yolo.EXPORTER,
        onnx.EXPORTER,
    )
}
"""Formats by their names on the command line."""
