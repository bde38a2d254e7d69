"""A copy of a VOC folder whose training tags have the faults of LID's: missing, and unbalanced.

    python benchmarks/faults.py --data VOC2012 --out runs/faulty

Of the split `train`, half of the classes, drawn, are left with a tenth of their photos (a photo is
dropped only while all of these classes in it have more), and then half of the photos tagged
`person` lose that tag. Photos that no tag is left of stay, with an empty cell. `val` keeps its
photos and its tags. Photos and masks are links into the folder given, which stays as it is.
"""

import argparse
import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from weakseg.data.balance import compare_counts, describe_counts
from weakseg.data.dataset import Sample, count_tags, load_dataset
from weakseg.files import write_text

MISSING, MISSING_SHARE = "person", 0.5
RARE_CLASSES_SHARE, RARE_PHOTOS_SHARE = 0.5, 0.1
LISTS = Path("ImageSets", "Segmentation")


def thin_out(
    samples: Sequence[Sample], rare: Collection[str], share: float, rng: np.random.Generator
) -> list[Sample]:
    """Drop photos until each class in `rare` is left with `share` of its own, or nearly."""
    counts = count_tags(samples)
    wanted = {tag: math.ceil(share * counts[tag]) for tag in rare}
    dropped = set()
    for i in rng.permutation(len(samples)):
        tags = samples[i].tags
        if wanted.keys() & tags and all(counts[t] > wanted.get(t, 0) for t in tags):
            dropped.add(i)
            counts.subtract(tags)
    return [sample for i, sample in enumerate(samples) if i not in dropped]


def remove_tag(
    samples: Sequence[Sample], tag: str, share: float, rng: np.random.Generator
) -> list[Sample]:
    """Take `tag` from `share` of the photos that carry it."""
    carriers = [i for i, sample in enumerate(samples) if tag in sample.tags]
    losers = set(rng.permutation(carriers)[: round(share * len(carriers))].tolist())
    return [
        replace(sample, tags=tuple(t for t in sample.tags if t != tag)) if i in losers else sample
        for i, sample in enumerate(samples)
    ]


def write_dataset(
    out: Path, source: Path, tags: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> None:
    """A VOC folder with tags and classes of its own, and photos and masks linked into another."""
    out.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClassAug", "SegmentationClass"):
        if (source / name).is_dir():
            (out / name).symlink_to((source / name).resolve())
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "tags"])
    rows.writerows([image, ";".join(of_image)] for image, of_image in tags.items())
    write_text(out / "tags.csv", table.getvalue())
    write_text(out / "classes.txt", "\n".join(classes) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="VOC devkit folder")
    parser.add_argument("--out", type=Path, required=True, help="where to make the faulty one")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists; name a folder that does not")
    train, val = (load_dataset(arguments.data, split, "voc") for split in ("train", "val"))

    rng = np.random.default_rng(arguments.seed)
    others = [name for name in train.classes if name != MISSING]
    number = round(RARE_CLASSES_SHARE * len(train.classes))
    rare = [others[i] for i in sorted(rng.permutation(len(others))[:number])]
    thinned = thin_out(train.samples, rare, RARE_PHOTOS_SHARE, rng)
    faulty = remove_tag(thinned, MISSING, MISSING_SHARE, rng)

    tags = {sample.id: sample.tags for sample in (*faulty, *val.samples)}
    write_dataset(arguments.out, arguments.data, tags, train.classes)
    for split, samples in (("train", faulty), ("val", val.samples)):
        lines = "".join(f"{sample.id}\n" for sample in samples)
        write_text(arguments.out / LISTS / f"{split}.txt", lines)

    print(f"train: {len(train.samples)} photos -> {len(faulty)}; val: {len(val.samples)}")
    print(f"thinned out: {', '.join(rare)}; tags missing: {MISSING}")
    for line in describe_counts(compare_counts(train.samples, faulty)):
        print(line)


if __name__ == "__main__":
    main()
