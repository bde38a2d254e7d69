"""The kinds of steps that a recipe can have, one file each.

A kind from elsewhere is added to `KINDS` before a recipe is read; its functions have to be
importable, since workers import them.
"""

from weakseg.methods import (
    calibrate,
    cam,
    classifier,
    combine,
    components,
    crf,
    deeplab,
    features,
    folder,
    gradcam,
    imagenet,
    instances,
    irn_labels,
    irnet,
    is_cam,
    levels,
    missing_tags,
    oaa,
    par,
    pixel_head,
    relabel,
    seed,
    segment,
    sipe,
    spread,
    svm,
    tags,
    threshold,
    walk,
)
from weakseg.methods.base import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        tags.KIND,
        features.KIND,
        missing_tags.KIND,
        classifier.KIND,
        imagenet.KIND,
        sipe.KIND,
        cam.KIND,
        gradcam.KIND,
        is_cam.KIND,
        oaa.KIND,
        levels.KIND,
        calibrate.KIND,
        threshold.KIND,
        seed.KIND,
        folder.KIND,
        svm.KIND,
        crf.KIND,
        par.KIND,
        spread.KIND,
        combine.KIND,
        components.KIND,
        irn_labels.KIND,
        irnet.KIND,
        walk.KIND,
        instances.KIND,
        deeplab.KIND,
        pixel_head.KIND,
        segment.KIND,
        relabel.KIND,
    )
}
"""Kinds by the names that recipes have for them, in the order of a run."""
