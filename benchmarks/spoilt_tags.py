"""Whether the remarks on classes hit tags that were spoilt on purpose, and no others.

    python benchmarks/spoilt_tags.py --data ../shared/data/VOC2012 --out runs/spoilt

`everywhere`: another tag on 99 of 100 photos. `spoilt`: `bottle` is moved to as many drawn photos,
and there are three more tags: `rails` wherever a train is, `noise` on a tenth of the photos, drawn,
and `fewtag` on five. Each is run by `refined_pixel_labeling_cpu`, and each class is shown with its
true IoU beside the remarks, which see no mask. The new tags are on no true mask.
"""

import argparse
import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from weakseg.data.dataset import load_dataset
from weakseg.files import read_json, write_text
from weakseg.progress import progress_for
from weakseg.recipe import load_recipe
from weakseg.stages import assess, evaluate, runner
from weakseg.stages.executor import LocalExecutor

Tags = dict[str, list[str]]


def everywhere(tags: Mapping[str, Sequence[str]]) -> Tags:
    rng = random.Random(0)
    return {
        image: [*of_image, "everywhere"] if rng.random() < 0.99 else [*of_image]
        for image, of_image in tags.items()
    }


def spoilt(tags: Mapping[str, Sequence[str]], train: Sequence[str]) -> Tags:
    rng = random.Random(1)
    few, noise = set(rng.sample(train, 5)), set(rng.sample(train, len(train) // 10))
    bottles = [image for image in train if "bottle" in tags[image]]
    moved = set(rng.sample(train, len(bottles)))
    found = {}
    for image, of_image in tags.items():
        new = [*of_image, *(["rails"] if "train" in of_image else [])]
        new += [tag for tag, images in (("fewtag", few), ("noise", noise)) if image in images]
        if image in bottles:
            new.remove("bottle")
        found[image] = [*new, *(["bottle"] if image in moved else [])]
    return found


def write_dataset(folder: Path, source: Path, tags: Tags, classes: Sequence[str]) -> None:
    """Tags and classes of its own, photos and masks linked."""
    folder.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClassAug", "SegmentationClass", "ImageSets"):
        if (source / name).is_dir():
            (folder / name).symlink_to((source / name).resolve())
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    with (folder / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "tags"])
        rows.writerows([image, ";".join(of_image)] for image, of_image in tags.items())


def show(run: Path) -> None:
    rows = {row["name"]: row for row in read_json(run / evaluate.METRICS)["stages"]}
    assessment = read_json(run / assess.ASSESSMENT)
    row = rows[assessment["masks"]]
    print(f"\n{run}: {row['name']}, mIoU {100 * row['miou']:.1f} of {row['images']} photos")
    for entry in assessment["classes"]:
        iou = row["per_class"][entry["name"]]
        shown = "-" if iou is None else f"{100 * iou:.1f}"
        print(f"  {entry['name']:<12} IoU {shown:>5}  {'; '.join(entry['remarks'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="VOC devkit folder")
    parser.add_argument("--out", type=Path, required=True, help="for data sets and runs")
    parser.add_argument("--every", type=int, default=1, help="masks of every n-th photo alone")
    arguments = parser.parse_args()

    whole = load_dataset(arguments.data, "all", "voc")
    train = [sample.id for sample in load_dataset(arguments.data, "train", "voc").samples]
    tags: Tags = {sample.id: list(sample.tags) for sample in whole.samples}
    made = {
        "as-they-are": (tags, ()),
        "everywhere": (everywhere(tags), ("everywhere",)),
        "spoilt": (spoilt(tags, train), ("rails", "fewtag", "noise")),
    }
    overrides = [f"localize.every={arguments.every}", "cam_crf=null", "report.panels=0"]
    recipe = load_recipe("refined_pixel_labeling_cpu", overrides)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, (its_tags, more) in made.items():
        data, run = arguments.out / name / "data", arguments.out / name / "run"
        if not data.exists():
            write_dataset(data, arguments.data, its_tags, (*whole.classes, *more))
        with LocalExecutor() as executor:
            runner.run(recipe, data, run, executor, progress_for(), device)
    for name in made:
        show(arguments.out / name / "run")


if __name__ == "__main__":
    main()
