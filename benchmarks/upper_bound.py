"""What the segmentation network of a recipe reaches when it learns from true masks.

    python benchmarks/upper_bound.py --data VOC2012 --out runs/upper_bound

The same network, schedule and photos as in the recipe, with the data set's masks in the place of
pseudo masks: the bound against which retention is measured. No shipped kind of step reads true
masks, so that no recipe learns from them by mistake; this one is added here.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import weakseg
from weakseg.data.masks import write_mask
from weakseg.methods import KINDS
from weakseg.methods.base import Artefact, File, Kind, Photos, Step, Tools
from weakseg.methods.settings import Section
from weakseg.tables import print_figures

TRUTH = "ground-truth"


def write_masks(step: Step, tools: Tools) -> None:
    for sample in tools.photos.samples:
        assert sample.mask is not None, f"{sample.id} has no true mask"
        write_mask(step.folder / f"{sample.id}.png", sample.mask.read())


def files(step: Step, photos: Photos) -> Iterator[File]:
    return (File(f"{sample.id}.png") for sample in photos.samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--recipe", default="three_step_cpu")
    parser.add_argument("overrides", nargs="*", help="step.key=value ...")
    arguments = parser.parse_args()
    KINDS[TRUTH] = Kind(
        name=TRUTH,
        summary="the true masks",
        settings=Section,
        gives=frozenset({Artefact.MASKS}),
        run=write_masks,
        files=files,
    )
    overrides = [*arguments.overrides, "report.panels=0", f"{TRUTH}={{kind: {TRUTH}}}"]
    for step in weakseg.load_recipe(arguments.recipe, arguments.overrides).steps:
        if step.kind.name == "deeplab":
            overrides.append(f"{step.name}.of={TRUTH}")
        elif step.kind.name != "segment":
            overrides.append(f"{step.name}=null")
    run = weakseg.run(arguments.recipe, arguments.data, arguments.out, overrides)
    print_figures(run.figures)


if __name__ == "__main__":
    main()
