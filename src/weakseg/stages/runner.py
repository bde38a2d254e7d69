"""Runs a recipe's stages: skips what is up to date, goes on with what was cut off."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from weakseg import __version__
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.errors import WeaksegError, unknown_name
from weakseg.files import read_json, remove_partial_files, stamp, write_json, write_text
from weakseg.progress import Progress
from weakseg.recipe import Recipe, dump_recipe
from weakseg.stages.base import Context, Stage
from weakseg.stages.executor import Executor
from weakseg.stages.networks import check_networks
from weakseg.stages.pipeline import stages

RECORD = "run.json"


def run(
    recipe: Recipe,
    data: Path,
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
    data_format: str = "auto",
) -> None:
    """Bring every stage of a recipe up to date in a run's folder.

    A stage whose fingerprint (its settings, the data, the stages it needs, the kind of device, the
    version of this package) is that of the folder's record is skipped if it was finished and
    continued if it was not; a stage with another fingerprint starts anew. Photos that could not be
    read are tried again each time; where one can be now, all but the inspection starts anew.

    Args:
        data: the data set's folder.
        folder: the run's folder; made if it is not there.
        data_format: how the data set is laid out; see `weakseg.data.dataset.load_dataset`.

    Raises:
        WeaksegError: what a user can mend; what was finished stays.
    """
    dataset = load_dataset(data, recipe.data.split, data_format)
    held_out = _held_out(recipe, dataset, data, data_format)
    _check_classes(recipe, dataset)
    _check_counts(recipe, len(dataset.samples))
    check_networks(recipe, len(dataset.samples), device)
    _say_left_out(progress, "photos without tags", dataset.untagged)
    _say_left_out(progress, "tags without a photo", dataset.missing)
    photos, truth = _photos_fingerprint(dataset), _masks_fingerprint(dataset)
    tried_on, its_truth = _files_fingerprint(held_out), _masks_fingerprint(held_out)
    record = _open_record(folder)
    record |= {
        "version": __version__,
        "seed": recipe.seed,
        "device": _describe(device),
        "data": {"folder": str(data), "split": recipe.data.split, "photos": len(dataset.samples)},
    }
    write_json(folder / RECORD, record)
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    context = Context(folder, recipe, dataset, held_out, executor, progress, device)
    fingerprints: dict[str, str] = {}
    for stage in stages(recipe):
        fingerprints[stage.name] = _digest(
            __version__,
            stage.name,
            stage.settings,
            [fingerprints[name] for name in stage.needs],
            photos,
            truth if stage.reads_masks else None,
            tried_on if stage.reads_held_out else None,
            its_truth if stage.reads_held_out and stage.reads_masks else None,
            device.type,
        )
        _bring_up_to_date(stage, fingerprints[stage.name], context, record)
        if stage.then:
            context = stage.then(context)
            fingerprints[stage.name] = _digest(
                stage.settings,
                [fingerprints[name] for name in stage.needs],
                [[s.id, s.tags, s.doubtful, s.dropped] for s in context.dataset.samples],
            )
            tried_on = _files_fingerprint(context.held_out)


def _bring_up_to_date(
    stage: Stage, fingerprint: str, context: Context, record: dict[str, Any]
) -> None:
    known = record["stages"].get(stage.name, {})
    output = context.folder / (stage.output or stage.name)
    same = known.get("fingerprint") == fingerprint and output.exists()
    if same and known.get("finished"):
        context.progress.say(f"{stage.name}: up to date")
        return
    if not same:
        # First the record: a kill amid the removal must not leave half of it up to date.
        record["stages"].pop(stage.name, None)
        write_json(context.folder / RECORD, record)
        _remove(output)
        known = {"fingerprint": fingerprint, "seconds": 0.0}
    known["finished"] = False
    if stage.output is None:
        output.mkdir(parents=True, exist_ok=True)
        remove_partial_files(output)
    record["stages"][stage.name] = known
    write_json(context.folder / RECORD, record)
    start = time.monotonic()
    try:
        stage.run(context)
        known["finished"] = True
    finally:
        known["seconds"] = round(known["seconds"] + time.monotonic() - start, 2)
        write_json(context.folder / RECORD, record)


def _held_out(recipe: Recipe, dataset: Dataset, data: Path, data_format: str) -> Dataset:
    split = recipe.data.held_out
    if split is None:
        return dataset
    try:
        held_out = load_dataset(data, split, data_format, untagged=True)
    except WeaksegError as error:
        raise WeaksegError(
            f"data.held_out is {split!r}: {error} With data.held_out=null the network is tried on "
            "the photos that it learned from."
        ) from error
    if held_out.classes != dataset.classes:
        raise WeaksegError(
            f"The splits {recipe.data.split!r} and {split!r} of {data} have other classes, for the "
            "classes are those that occur in the tags. List them in classes.txt."
        )
    return held_out


def _check_classes(recipe: Recipe, dataset: Dataset) -> None:
    own = (recipe.separate.class_name,) if recipe.separate else ()
    for name in (*recipe.data.drop_classes, *own):
        if name not in dataset.classes:
            raise unknown_name("class", name, dataset.classes)


def _check_counts(recipe: Recipe, photos: int) -> None:
    folds = recipe.missing_tags.folds if recipe.missing_tags else 0
    for key, value in (("localize.every", recipe.localize.every), ("missing_tags.folds", folds)):
        if value > photos:
            raise WeaksegError(f"{key} is {value}, and there are {photos} photos. Lower it.")


def _say_left_out(progress: Progress, what: str, ids: Sequence[str]) -> None:
    if ids:
        progress.say(f"left out: {len(ids)} {what}, such as {ids[0]}")


def _remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def _open_record(folder: Path) -> dict[str, Any]:
    if (folder / RECORD).exists():
        record: dict[str, Any] = read_json(folder / RECORD)
        if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
            raise WeaksegError(f"{folder / RECORD} is no record of a run. Choose another folder.")
        remove_partial_files(folder)
        return record
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeaksegError(
            f"{folder} exists and is no run's folder (it has no {RECORD}). Choose another."
        )
    return {"stages": {}}


def _photos_fingerprint(dataset: Dataset) -> str:
    tags = [s.tags for s in dataset.samples]
    return _digest(dataset.classes, tags, _files_fingerprint(dataset))


def _files_fingerprint(dataset: Dataset) -> str:
    return _digest([[s.id, stamp(s.image)] for s in dataset.samples])


def _masks_fingerprint(dataset: Dataset) -> str:
    files = ((sample.mask, sample.objects) for sample in dataset.samples)
    return _digest([[stamp(file) if file else None for file in both] for both in files])


def _digest(*values: Any) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
