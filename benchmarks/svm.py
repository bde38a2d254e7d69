"""Our per-image SVM against scikit-learn's SVC in a plain loop: agreement, CPU time and memory.

    python benchmarks/svm.py --data VOC2012 --run runs/cpu

The CAMs and features are those of a finished run, of photos with one, two and four tags. The peer
is what one writes without this package: SVC is trained anew in every cycle, relabels its samples,
and labels all pixels at last, by the pairs' decision values and the same rule as ours (a class's
mean; votes tie). Both see the same samples, and run in turn on one thread. Of the labels of all
photos 99.5 % must be equal before a ratio is given.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from side_by_side import Row, added_mib, record
from weakseg.data.dataset import Sample, load_dataset
from weakseg.localize.seeds import seed_from_cam
from weakseg.recipe import load_recipe
from weakseg.refine.samples import exclude_noisy_foreground, image_rng, select_samples
from weakseg.refine.svm import SVMSettings, refine_with_svm, zscore
from weakseg.stages import localize

REQUIRED_AGREEMENT = 0.995
TAGS = (1, 2, 4)  # with the background: 2, 3 and 5 classes

Floats = NDArray[np.float32]
Labels = NDArray[np.int16]


def predict(model: SVC, of: Floats) -> Labels:
    margins = model.decision_function(of)
    if len(model.classes_) == 2:
        return model.classes_[(margins > 0).astype(int)]
    means = np.zeros((margins.shape[1], len(model.classes_)))
    pairs = itertools.combinations(range(len(model.classes_)), 2)
    for column, (i, j) in enumerate(pairs):
        means[column, [i, j]] = 1, -1
    return model.classes_[(margins @ means).argmax(axis=1)]


def peer(features: Floats, cam: Floats, settings: SVMSettings, name: str) -> Labels:
    """The plain loop; without background or foreground the CAM decides, as with ours."""
    pixels = features.reshape(len(features), -1).T
    thresholds = settings.foreground_threshold, settings.background_threshold
    seed = seed_from_cam(cam, *thresholds)
    indices, labels = select_samples(
        cam, seed, settings.samples_per_class, thresholds[0], image_rng(0, name), settings.sampling
    )
    samples = pixels[indices]
    if settings.exclusion_threshold is not None and (labels == 0).any():
        keep = exclude_noisy_foreground(samples, labels, settings.exclusion_threshold)
        samples, labels = samples[keep], labels[keep]
    if len(np.unique(labels)) < 2 or not (labels == 0).any():
        return seed_from_cam(cam, thresholds[0], thresholds[0]).clip(min=0)
    model = SVC(C=settings.C, gamma=settings.gamma, decision_function_shape="ovo").fit(
        samples, labels
    )
    for _ in range(settings.cycles):
        predicted = predict(model, samples)
        if len(np.unique(predicted)) < len(np.unique(labels)):
            break
        labels = predicted
        model = SVC(C=settings.C, gamma=settings.gamma, decision_function_shape="ovo").fit(
            samples, labels
        )
    return predict(model, pixels).reshape(cam.shape[1:]).astype(np.int16)


def ours(features: Floats, cam: Floats, settings: SVMSettings, name: str) -> Labels:
    return refine_with_svm(features, cam, settings, image_rng(0, name)).labels


def compare(case: str, photos: Sequence[Sample], folder: Path, settings: SVMSettings) -> Row:
    seconds = {ours: 0.0, peer: 0.0}
    same = total = 0
    calls = []
    for sample in photos:
        found = localize.read_localization(folder, sample.id)
        arguments = zscore(found.features.astype(np.float32)), found.cam, settings, sample.id
        if not calls:
            ours(*arguments)  # compiles
        labels = []
        for function in seconds:
            start = time.process_time()
            labels.append(function(*arguments))
            seconds[function] += time.process_time() - start
            calls.append(partial(function, *arguments))
        same += int((labels[0] == labels[1]).sum())
        total += labels[0].size
    if same / total < REQUIRED_AGREEMENT:
        sys.exit(f"{case}: only {same / total:.2%} of the labels are equal; no ratio")
    little = [
        partial(call.func, f[:, ::8, ::8], cam[:, ::8, ::8], settings, "warm")
        for call in calls[:2]
        for f, cam in [call.args[:2]]
    ]
    memory = [added_mib(warm_up, call) for warm_up, call in zip(little, calls[:2], strict=True)]
    return Row(
        "svm",
        f"{case}, {len(photos)} photos, 1 thread, CPU s",
        "scikit-learn SVC",
        same / total,
        "share of equal labels",
        seconds[ours],
        seconds[peer],
        *memory,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data set of the run")
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--images", type=int, default=3, help="photos of each number of classes")
    arguments = parser.parse_args()
    recipe = load_recipe(str(arguments.run / "recipe.yaml"))
    assert recipe.svm is not None
    # As many samples as the paper's, and its kernel; the CAM's own thresholds bring them about.
    many = replace(
        recipe.svm,
        samples_per_class=2500,
        foreground_threshold=0.3,
        background_threshold=0.3,
        exclusion_threshold=None,
        gamma="scale",
    )
    samples = load_dataset(arguments.data, recipe.data.split).samples
    folder = arguments.run / localize.NAME
    with threadpool_limits(1):
        for tags in TAGS:
            chosen = [s for s in samples if len(s.tags) == tags][: arguments.images]
            for name, settings in (("the recipe's samples", recipe.svm), ("2,500 samples", many)):
                record([compare(f"{tags + 1} classes, {name}", chosen, folder, settings)])


if __name__ == "__main__":
    main()
