"""Runs a recipe's stages: skips what is up to date, goes on with what was cut off."""

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from weakseg import __version__
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.masks import write_classes
from weakseg.data.tags import find_tag_faults
from weakseg.errors import WeaksegError, quoted, unknown_name
from weakseg.files import remove, remove_partial_files, stamp, sync_files, write_text
from weakseg.progress import Progress
from weakseg.recipe import Recipe, dump_recipe
from weakseg.stages import preview
from weakseg.stages.balance import without_dropped
from weakseg.stages.base import Context, Stage
from weakseg.stages.executor import Executor
from weakseg.stages.networks import check_networks, replaced_precisions
from weakseg.stages.outputs import TABLES, Fault, digest, find_faults, last_change
from weakseg.stages.pipeline import measured, stages
from weakseg.stages.record import Record, StageRecord, owned, write_record


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

    A stage whose fingerprint (its version and settings, the data, the stages it needs, the kind of
    device) is that of the folder's record is skipped if it was finished and continued if it was
    not; a stage with another fingerprint starts anew. Of a stage that is believed, what is missing
    or damaged is made again. Photos that could not be read are tried again each time; where one can
    be now, all but the inspection starts anew.

    Args:
        data: the data set's folder.
        folder: the run's folder; made if it is not there. No other run writes into it meanwhile.
        data_format: how the data set is laid out; see `weakseg.data.dataset.load_dataset`.

    Raises:
        WeaksegError: what a user can mend; what was finished stays.
    """
    dataset = load_dataset(data, recipe.data.split, data_format)
    held_out = _held_out(recipe, dataset, data, data_format)
    _check_classes(recipe, dataset)
    _check_counts(recipe, len(dataset.samples))
    channels = check_networks(recipe, len(dataset.samples), device)
    tag_faults = list(_tag_faults(recipe, dataset))
    with owned(folder, progress) as record:
        for note in dict.fromkeys((*dataset.notes, *held_out.notes)):
            progress.say(note)
        for precision in replaced_precisions(recipe, device):
            progress.say(f"This CPU has no instructions for {precision}: float32 takes its place")
        _say_left_out(progress, "photos without tags", dataset.untagged)
        _say_left_out(progress, "tags without a photo", dataset.missing)
        for line in tag_faults:
            progress.say(f"tags: {line}")
        record.version, record.seed, record.device = __version__, recipe.seed, _describe(device)
        record.data = {
            "folder": str(data),
            "split": recipe.data.split,
            "photos": len(dataset.samples),
        }
        write_record(folder, record)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        left_out = {"without tags": len(dataset.untagged)} if dataset.untagged else {}
        context = Context(folder, recipe, dataset, held_out, executor, progress, device, left_out)
        _run_stages(context, record, channels)


def _run_stages(context: Context, record: Record, channels: int) -> None:
    photos, truth = _photos_fingerprint(context.dataset), _masks_fingerprint(context.dataset)
    tried_on = _files_fingerprint(context.held_out)
    its_truth = _masks_fingerprint(context.held_out)
    with_masks = {stage.name for stage in measured(context.recipe)}
    fingerprints: dict[str, str] = {}
    plan = stages(context.recipe)

    def fingerprint(stage: Stage) -> str:
        fingerprints[stage.name] = _digest(
            stage.version,
            stage.name,
            stage.settings,
            [fingerprints[name] for name in stage.needs],
            photos,
            truth if stage.reads_masks else None,
            tried_on if stage.reads_held_out else None,
            its_truth if stage.reads_held_out and stage.reads_masks else None,
            context.device.type,
        )
        return fingerprints[stage.name]

    def is_known(stage: Stage) -> bool:
        known, now = record.stages.get(stage.name), fingerprint(stage)
        return known is not None and known.fingerprint == now

    def bring(stage: Stage, some: Context, whole: bool = True) -> None:
        others = _independent(stage, plan)
        _bring_up_to_date(stage, fingerprint(stage), others, some, record, whole)

    first_work = next(stage.name for stage in plan if not stage.then)
    for place, stage in enumerate(plan):
        if stage.name == first_work:
            preview.say_disk(context, channels)
        if stage.per_photo and not is_known(stage):
            following = list(takewhile(lambda one: one.per_photo, plan[place:]))
            ahead = [s for s in following if not (is_known(s) and record.stages[s.name].finished)]
            made = {one.name for one in plan[:place] + tuple(following)}
            drawn = [name for name in context.recipe.mask_stages if name in made]
            preview.run(context, ahead, drawn, partial(bring, whole=False))
        bring(stage, context)
        if stage.name in with_masks:
            write_classes(context.stage_folder(stage.name), context.dataset.classes)
        if stage.then:
            context = stage.then(context)
            if record.stages[stage.name].digests != (noted := _digests(stage, context)):
                record.stages[stage.name].digests = noted
                write_record(context.folder, record)
            fingerprints[stage.name] = _digest(
                stage.version,
                stage.settings,
                [fingerprints[name] for name in stage.needs],
                [[s.id, s.tags, s.doubtful, s.dropped] for s in context.dataset.samples],
            )
            tried_on = _files_fingerprint(context.held_out)
    record.data["left_out"] = dict(context.left_out)
    write_record(context.folder, record)
    context.progress.say(_describe_photos(context))


def _bring_up_to_date(
    stage: Stage,
    fingerprint: str,
    others: Collection[str],
    context: Context,
    record: Record,
    whole: bool,
) -> None:
    """Run a stage unless it is finished; one that is not `whole` has other photos to come."""
    known = record.stages.get(stage.name)
    output = context.folder / (stage.output or stage.name)
    if known and known.fingerprint == fingerprint:
        if _put_right(stage, known, others, context, record) and known.finished:
            context.progress.say(f"{stage.name}: up to date")
            return
    else:
        # First the record: a kill amid the removal must not leave half of it up to date.
        record.stages.pop(stage.name, None)
        write_record(context.folder, record)
        remove(output)
        known = StageRecord(fingerprint=fingerprint)
    known.finished = False
    if stage.output is None:
        output.mkdir(parents=True, exist_ok=True)
        remove_partial_files(output)
    record.stages[stage.name] = known
    write_record(context.folder, record)
    start = time.monotonic()
    try:
        stage.run(context)
        sync_files(path for path in _paths(stage, context) if path.is_file())
        known.finished = whole
    finally:
        known.seconds = round(known.seconds + time.monotonic() - start, 2)
        known.digests = _digests(stage, context)
        known.settled = last_change(stage.outputs(context)) if known.finished else 0
        write_record(context.folder, record)


def _put_right(
    stage: Stage,
    known: StageRecord,
    others: Collection[str],
    context: Context,
    record: Record,
) -> bool:
    """Remove what is not as the stage left it, for the stage to make it again.

    Of a missing or broken file nothing was made; of another photo's something may have been, and
    all stages but `others` start anew.

    Returns:
        Whether all that the stage writes is there.
    """
    digests = {context.folder / path: text for path, text in known.digests.items()}
    faults = find_faults(stage.outputs(context), digests, known.settled)
    changed = [(path, fault) for path, fault in faults if fault is not Fault.MISSING]
    if known.finished and faults:
        path, fault = faults[0]
        context.progress.say(
            f"{stage.name}: {len(faults)} files are not as they were written, such as {path} "
            f"({fault.value}): made again"
        )
    if any(fault is Fault.FOREIGN for _, fault in faults):
        record.stages = {name: its for name, its in record.stages.items() if name in others}
        record.stages[stage.name] = known
    if changed:
        # First the record: a kill amid the removal must not leave the rest to be believed.
        known.finished = False
        write_record(context.folder, record)
    for path, _ in changed:
        remove(path)
    return not faults


def _independent(stage: Stage, among: Sequence[Stage]) -> set[str]:
    """Names of the stages that need neither this one nor any that needs it."""
    made_of_it = {stage.name}
    for other in among:
        if made_of_it.intersection(other.needs):
            made_of_it.add(other.name)
    return {other.name for other in among} - made_of_it


def _digests(stage: Stage, context: Context) -> dict[str, str]:
    """Digests of a stage's tables, by path in the run's folder."""
    tables = (path for path in _paths(stage, context) if path.suffix in TABLES and path.is_file())
    return {path.relative_to(context.folder).as_posix(): digest(path) for path in tables}


def _paths(stage: Stage, context: Context) -> Iterator[Path]:
    return (output.path for output in stage.outputs(context))


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
    if recipe.separate and recipe.separate.class_name not in dataset.classes:
        raise unknown_name("class", recipe.separate.class_name, dataset.classes)


def _tag_faults(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    learned_from = without_dropped(dataset, recipe.data).samples
    return find_tag_faults([sample.tags for sample in learned_from]).lines()


def _describe_photos(context: Context) -> str:
    """How many photos got a mask, and how many were left out, and why."""
    masked = len(context.masked_samples())
    reasons = ", ".join(f"{number} {why}" for why, number in context.left_out.items())
    return f"{masked} photos have a mask; left out: {reasons or 'none'}"


def _check_counts(recipe: Recipe, photos: int) -> None:
    folds = recipe.missing_tags.folds if recipe.missing_tags else 0
    for key, value in (("localize.every", recipe.localize.every), ("missing_tags.folds", folds)):
        if value > photos:
            raise WeaksegError(f"{key} is {value}, and there are {photos} photos. Lower it.")


def _say_left_out(progress: Progress, what: str, ids: Sequence[str]) -> None:
    if ids:
        progress.say(f"left out: {len(ids)} {what}, such as {quoted(ids[0])}")


def _photos_fingerprint(dataset: Dataset) -> str:
    tags = [s.tags for s in dataset.samples]
    return _digest(dataset.classes, tags, _files_fingerprint(dataset))


def _files_fingerprint(dataset: Dataset) -> str:
    return _digest([[s.id, stamp(s.image)] for s in dataset.samples])


def _masks_fingerprint(dataset: Dataset) -> str:
    masks = ((sample.mask, sample.objects) for sample in dataset.samples)
    return _digest([[mask.stamp() if mask else None for mask in both] for both in masks])


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
