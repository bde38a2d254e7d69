"""A data set for Hugging Face `datasets`: Parquet files, read without a script."""

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from weakseg.data.masks import BACKGROUND, IGNORE, mask_image
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.pictures import picture_of, png
from weakseg.files import write_atomically, write_text

_GROUP = 100  # photos that are written, and read, at once
_NO_SPLIT = "all"  # what `datasets` calls all splits together


def write(job: Job, folder: Path) -> None:
    """`data/SPLIT-00000.parquet`, ..., with `README.md` and `id2label.json`.

    Columns: `id`, `image`, `mask` (PNG of mode P: its numbers are the ids), `classes` (those in the
    mask, from 0), `confidence` (or none) and `accepted`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(job.run.classes)
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "classes": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"},
        "confidence": {"dtype": "float32", "_type": "Value"},
        "accepted": {"dtype": "bool", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", picture),
            ("mask", picture),
            ("classes", pa.list_(pa.int64())),
            ("confidence", pa.float32()),
            ("accepted", pa.bool_()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    split = "train" if job.split == _NO_SPLIT else re.sub(r"\W", "_", job.split)

    def path(number: int) -> Path:
        return folder / "data" / f"{split}-{number:05}.parquet"

    for shard, photos in job.map_shards(path, describe):
        with (
            write_atomically(shard, durable=True) as temporary,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            while group := [row for _, row in islice(photos, _GROUP)]:
                writer.write_table(pa.Table.from_pylist(group, schema))
    id2label = {str(i): name for i, name in enumerate((BACKGROUND, *names))}
    write_text(folder / "id2label.json", json.dumps(id2label, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", _card(split, len(job.photos)))


def describe(masked: Masked) -> dict[str, Any]:
    """A photo's row."""
    photo = masked.photo
    suffix, content = picture_of(photo.image)
    _, classes = masked.regions()
    return {
        "id": photo.id,
        "image": {"bytes": content, "path": f"{photo.id}{suffix}"},
        "mask": {"bytes": png(mask_image(masked.ids)), "path": f"{photo.id}.png"},
        "classes": [class_id - 1 for class_id in dict.fromkeys(classes)],
        "confidence": photo.confidence,
        "accepted": photo.accepted,
    }


def _card(split: str, photos: int) -> str:
    head = {
        "task_categories": ["image-segmentation"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}],
            }
        ],
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{photos} photos with masks made by "
        f"weakseg. A mask's numbers are the ids of `id2label.json`; {IGNORE} is uncertain.\n"
    )


EXPORTER = Exporter(
    name="huggingface",
    summary="Hugging Face datasets: data/SPLIT-*.parquet, README.md, id2label.json",
    write=write,
    sharded=True,
)
