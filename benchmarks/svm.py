"""Our per-image SVM against an SVC in a plain loop: agreement, CPU time and memory.

    python benchmarks/svm.py --data VOC2012 --run runs/cpu --resnet50 resnet50.safetensors

The CAMs and features are those of a finished run's step `localize`, of photos with one, two and
four tags, the settings those of its step `svm`; with the weights of a ResNet-50, its 256 channels
of stride 4 as well, which the paper takes. A peer is what one writes without this package:
scikit-learn's SVC, or Intel's in its place, is trained anew in every cycle, relabels its samples,
and labels all pixels at last, by the pairs' decision values and the same rule as ours (a class's
mean; votes tie). All see the same samples, and run in turn on one thread. Of the labels of all
photos 99.5 % must be equal before a ratio is given.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import sklearnex.svm
from numpy.typing import NDArray
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from side_by_side import Row, added_mib, record
from weakseg import Run, open_run
from weakseg.data.dataset import Sample, load_dataset
from weakseg.data.images import read_photo
from weakseg.localize.cam import localize_tags
from weakseg.localize.seeds import seed_from_cam
from weakseg.methods.networks import build_classifier
from weakseg.methods.settings import BackboneSection
from weakseg.refine.samples import exclude_noisy_foreground, image_rng, select_samples
from weakseg.refine.svm import SVMSettings, refine_with_svm, zscore

REQUIRED_AGREEMENT = 0.995
PEERS = {"scikit-learn SVC": SVC, "scikit-learn-intelex SVC": sklearnex.svm.SVC}
TAGS = (1, 2, 4)  # with the background: 2, 3 and 5 classes

Floats = NDArray[np.float32]
Labels = NDArray[np.int16]


def scores_of(model: SVC, of: Floats) -> Floats:
    """A row for each class of the model: its mean over the pairs' decision values."""
    margins: Floats = model.decision_function(of).astype(np.float32)
    if len(model.classes_) == 2:
        margins /= 2
        return np.stack([-margins, margins])
    means = np.zeros((len(model.classes_), margins.shape[1]), np.float32)
    pairs = itertools.combinations(range(len(model.classes_)), 2)
    for column, (i, j) in enumerate(pairs):
        means[[i, j], column] = 1 / len(means), -1 / len(means)
    scores: Floats = means @ margins.T
    return scores


def peer_scores(
    features: Floats, cam: Floats, settings: SVMSettings, name: str, svc: type[SVC] = SVC
) -> Floats:
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
        background = np.full((1, *cam.shape[1:]), thresholds[0], np.float32)
        return np.concatenate([background, cam])
    model = _trained(svc, samples, labels, settings)
    for _ in range(settings.cycles):
        predicted = model.classes_[scores_of(model, samples).argmax(axis=0)]
        if len(np.unique(predicted)) < len(np.unique(labels)):
            break
        labels = predicted
        model = _trained(svc, samples, labels, settings)
    found = scores_of(model, pixels)
    scores = np.full((len(cam) + 1, len(pixels)), found.min() - 1, np.float32)
    scores[model.classes_] = found
    return scores.reshape(-1, *cam.shape[1:])


def _trained(svc: type[SVC], samples: Floats, labels: Labels, settings: SVMSettings) -> SVC:
    model = svc(
        kernel=settings.kernel,
        C=settings.C,
        gamma=settings.gamma,
        decision_function_shape="ovo",
    )
    return model.fit(samples, labels)


def peer_labels(
    svc: type[SVC], features: Floats, cam: Floats, settings: SVMSettings, name: str
) -> Labels:
    scores = peer_scores(features, cam, settings, name, svc)
    labels: Labels = scores.argmax(axis=0).astype(np.int16)
    return labels


def ours(features: Floats, cam: Floats, settings: SVMSettings, name: str) -> Labels:
    return refine_with_svm(features, cam, settings, image_rng(0, name)).labels


Problem = tuple[Floats, Floats, SVMSettings, str]
Localizer = Callable[[Sample], tuple[Floats, Floats]]
"""A photo's features and CAMs."""


def compare(case: str, problems: Sequence[Problem]) -> list[Row]:
    """A row for each peer."""
    functions: dict[str, Callable[..., Labels]] = {"ours": ours}
    functions |= {name: partial(peer_labels, svc) for name, svc in PEERS.items()}
    seconds, same = dict.fromkeys(functions, 0.0), dict.fromkeys(functions, 0)
    for function in functions.values():
        function(*_small(problems[0]))  # compiles, and loads
    for problem in problems:
        labels = {}
        for name, function in functions.items():
            start = time.process_time()
            labels[name] = function(*problem)
            seconds[name] += time.process_time() - start
            same[name] += int((labels[name] == labels["ours"]).sum())
    memory = {
        name: added_mib(partial(function, *_small(problems[0])), partial(function, *problems[0]))
        for name, function in functions.items()
    }
    rows = []
    for name in PEERS:
        equal = same[name] / same["ours"]
        if equal < REQUIRED_AGREEMENT:
            sys.exit(f"{case}, {name}: only {equal:.2%} of the labels are equal; no ratio")
        rows.append(
            Row(
                "svm",
                f"{case}, {len(problems)} photos, 1 thread, CPU s",
                name,
                equal,
                "share of equal labels",
                seconds["ours"],
                seconds[name],
                memory["ours"],
                memory[name],
            )
        )
    return rows


def _small(problem: Problem) -> Problem:
    features, cam, settings, name = problem
    return features[:, ::8, ::8], cam[:, ::8, ::8], settings, name


def of_run(run: Run) -> Localizer:
    def find(sample: Sample) -> tuple[Floats, Floats]:
        found = run.maps(sample.id, "localize", "features")
        assert found.features is not None
        return found.features.astype(np.float32), found.scores

    return find


def of_resnet50(weights: Path, cams: Localizer) -> Localizer:
    """The paper's features, with the run's CAMs."""
    backbone = BackboneSection(name="resnet50.tv_in1k", weights=str(weights))
    network = build_classifier(backbone, 1).eval()

    def find(sample: Sample) -> tuple[Floats, Floats]:
        photo = read_photo(sample.image)
        features = localize_tags(network, photo, (), (1.0,), (1,)).features
        return features.astype(np.float32), cams(sample)[1]

    return find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data set of the run")
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--images", type=int, default=3, help="photos of each number of classes")
    parser.add_argument("--resnet50", type=Path, help="weights, for features of 256 channels")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    own: SVMSettings = run.steps["svm"].settings
    # As many samples as the paper's, and its kernel; the CAM's own thresholds bring them about.
    many = replace(
        own,
        samples_per_class=2500,
        foreground_threshold=0.3,
        background_threshold=0.3,
        exclusion_threshold=None,
        gamma="scale",
    )
    samples = load_dataset(arguments.data, run.recipe.data.split).samples
    found = of_run(run)
    cases = [("the recipe's samples", own, found), ("2,500 samples", many, found)]
    if arguments.resnet50:
        cases += [("2,500 samples", many, of_resnet50(arguments.resnet50, found))]
    with threadpool_limits(1):
        for tags in TAGS:
            chosen = [s for s in samples if len(s.tags) == tags][: arguments.images]
            for name, settings, localizer in cases:
                problems = []
                for sample in chosen:
                    features, cam = localizer(sample)
                    problems.append((zscore(features), cam, settings, sample.id))
                channels = len(problems[0][0])
                record(compare(f"{tags + 1} classes, {name}, {channels} channels", problems))


if __name__ == "__main__":
    main()
