"""Whether the remarks on classes hit tags that were spoilt on purpose, and no others.

    python benchmarks/spoilt_tags.py --data VOC2012 --out runs/spoilt

`everywhere`: another tag on 99 of 100 photos. `spoilt`: `bottle` is moved to as many drawn photos,
and there are three more tags: `rails` wherever a train is, `noise` on a tenth of the photos, drawn,
and `fewtag` on five. Each is run by `refined_pixel_labeling_cpu`, and each class is shown with its
true IoU beside the remarks, which see no mask. The new tags are on no true mask.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import weakseg
from faults import write_dataset
from weakseg.data.dataset import load_dataset

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


def show(name: str, run: weakseg.Run) -> None:
    row = next(row for row in run.figures if row["name"] == run.masks)
    print(f"\n{name}: {row['name']}, mIoU {100 * row['miou']:.1f} of {row['images']} photos")
    for entry in run.assessment:
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
    overrides = [f"data.every={arguments.every}", "cam+crf=null", "report.panels=0"]
    for name, (its_tags, more) in made.items():
        data, out = arguments.out / name / "data", arguments.out / name / "run"
        if not data.exists():
            write_dataset(data, arguments.data, its_tags, (*whole.classes, *more))
            (data / "ImageSets").symlink_to((arguments.data / "ImageSets").resolve())
        show(name, weakseg.run("refined_pixel_labeling_cpu", data, out, overrides))


if __name__ == "__main__":
    main()
