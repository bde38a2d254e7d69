"""Runs a recipe's steps: skips what is up to date, goes on with what was cut off."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import torch

from weakseg import stores
from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.masks import write_classes
from weakseg.data.tag_faults import few_lines, find_tag_faults
from weakseg.engine import assess, balance, confidence, evaluate, inspect, panels, preview
from weakseg.engine.context import Context
from weakseg.engine.executor import network_executor
from weakseg.engine.fingerprints import Digests, digest_of, fingerprint_of
from weakseg.engine.outputs import (
    TABLES,
    Fault,
    Output,
    digest,
    find_faults,
    last_change,
    outputs_of,
)
from weakseg.engine.record import Record, StepRecord, owned, write_record
from weakseg.engine.reviewed import Reviewed
from weakseg.errors import WeaksegError, listed, quoted
from weakseg.files import remove, remove_partial_files, sync_files, write_text
from weakseg.methods.base import Artefact, Executor, Step, map_photos
from weakseg.methods.maps import Writer, suffixes
from weakseg.methods.networks import replaced_precisions
from weakseg.progress import Progress
from weakseg.recipe import RECIPE, Recipe, dump_recipe
from weakseg.version import VERSION


def run(
    recipe: Recipe,
    data: Path,
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
    data_format: str = "auto",
) -> None:
    """Bring every step of a recipe up to date in a run's folder: `run_on` a data set's folder.

    Args:
        data: the data set's folder.
        data_format: how the data set is laid out; see `weakseg.data.dataset.load_dataset`.
    """
    dataset = load_dataset(data, recipe.data.split, data_format)
    held_out = _held_out(recipe, dataset, data, data_format)
    run_on(dataset, held_out, recipe, folder, executor, progress, device)


def run_on(
    dataset: Dataset,
    held_out: Dataset,
    recipe: Recipe,
    folder: Path,
    executor: Executor,
    progress: Progress,
    device: torch.device,
) -> None:
    """Bring every step of a recipe up to date in a run's folder.

    A step whose fingerprint (its kind's version, its settings, the data it sees, the steps it
    reads, the kind of device) is that of the folder's record is skipped if it was finished and
    continued if it was not; a step with another fingerprint starts anew. Of a step that is
    believed, what is missing or damaged is made again. Photos that could not be read are tried
    again each time; where one can be now, all but the inspection starts anew.

    Args:
        dataset: the photos.
        held_out: those that a segmentation network is tried on.
        folder: the run's folder; made if it is not there. No other run writes into it meanwhile.
        executor: does per-photo work; where networks run on a GPU, all but theirs.

    Raises:
        WeaksegError: what a user can mend; what was finished stays.
    """
    if recipe.data.every > len(dataset.samples):
        raise WeaksegError(
            f"data.every is {recipe.data.every}, and there are {len(dataset.samples)} photos. "
            "Lower it."
        )
    reviewed = Reviewed.of(folder)
    dataset = reviewed.retagged(dataset)
    masks = reviewed.masks(sample.id for sample in dataset.samples)
    context = Context(
        folder=folder,
        recipe=recipe,
        steps=recipe.build(folder, str(device)),
        dataset=dataset,
        held_out=held_out,
        cpu=executor,
        network=network_executor(executor, str(device)),
        progress=progress,
        device=device,
        left_out={"without tags": len(dataset.untagged)} if dataset.untagged else {},
        reviewed=masks,
    )
    used = balance.without_dropped(dataset, recipe.data)
    for step in context.steps:
        if step.kind.check:
            step.kind.check(step, replace(context, dataset=used).photos(step), device)
    with owned(folder, progress) as record:
        for note in dict.fromkeys((*dataset.notes, *held_out.notes)):
            progress.say(note)
        if masks:
            progress.say(f"{len(masks)} masks are those of {reviewed.folder} wherever masks teach")
        wanted = (getattr(step.settings, "precision", "32-true") for step in context.steps)
        for precision in replaced_precisions(wanted, device):
            progress.say(f"This CPU has no instructions for {precision}: float32 takes its place")
        _say_left_out(progress, "photos without tags", dataset.untagged)
        _say_left_out(progress, "tags without a photo", dataset.missing)
        if context.learns_tags:
            faults = find_tag_faults([sample.tags for sample in used.samples])
            for line in faults.lines():
                progress.say(f"tags: {line}")
            for line in few_lines(faults):
                progress.say(f"photos: {line}")
        del used  # of a million photos a hundred megabytes, where classes are dropped
        record.version, record.seed, record.device = VERSION, recipe.seed, _describe(device)
        record.data = {
            "folder": stores.address_of(dataset.root) or str(dataset.root),
            "format": dataset.format,
            "split": recipe.data.split,
            "photos": len(dataset.samples),
            "classes": list(dataset.classes),
        }
        write_record(folder, record)
        write_text(folder / RECIPE, dump_recipe(recipe))
        _Run(context, record).go()


@dataclass(frozen=True)
class _Unit:
    """A part of a run that is done as a whole, or gone on with: a step, or what the engine adds.

    Attributes:
        fingerprint: of all that its results depend on.
        run: does the work; files that are there already, whole, need not be made again.
        outputs: the files that it writes.
        place: what it writes as a whole: a folder, or one file.
    """

    name: str
    fingerprint: str
    run: Callable[[], None]
    outputs: Callable[[], Iterable[Output]]
    place: Path


class _Part(Protocol):
    """A module of the engine that does a part of a run, and where in its folder that lies."""

    NAME: str
    PLACE: str

    def run(self, context: Context) -> None: ...

    def outputs(self, context: Context) -> Iterable[Output]: ...


class _Run:
    """One run: how far its context is, and its record."""

    def __init__(self, context: Context, record: Record) -> None:
        self._context, self._record = context, record
        self._fingerprints: dict[str, str] = {}
        self._digests = Digests()
        self._kept = [step for step in context.steps if step.kept]
        parts = [inspect.NAME, evaluate.NAME, panels.NAME]
        parts += [balance.NAME] if context.recipe.data.balanced else []
        parts += [assess.NAME, confidence.NAME] if context.mask_steps(held_out=False) else []
        self._count = len(parts) + len(self._kept)
        self._begun = 0
        self._expected: dict[str, float] = {}

    def go(self) -> None:
        self._prepare_data()
        context, kept = self._context, self._kept
        cell_bytes = (step.kind.cell_bytes(step) for step in kept if step.kind.cell_bytes)
        preview.say_disk(context, sum(cell_bytes))
        for place, step in enumerate(kept):
            if step.kind.work and not self._is_known(step):
                following = list(takewhile(lambda one: one.kind.work, kept[place:]))
                ahead = [one for one in following if not self._is_finished(one)]
                made = {one.name for one in (*kept[:place], *following)}
                drawn = [one for one in context.mask_steps(held_out=False) if one.name in made]
                bring = partial(self._bring_step, whole=False)
                self._expected.update(preview.run(context, ahead, drawn, bring))
            self._bring_step(step, context)
            if step.kind.then:
                seen = step.kind.then(step, context.photos(step))
                context = replace(context, seen={**context.seen, step.name: seen})
                self._context = context
        self._bring_engine()
        self._record.data["left_out"] = dict(context.left_out)
        write_record(context.folder, self._record)
        context.progress.say(_describe_photos(context))

    def _prepare_data(self) -> None:
        """What every step sees: photos that can be read, balanced if that is asked for."""
        context = self._context
        data = context.recipe.data
        both = self._digests.files(context.dataset.samples, context.held_out.samples)
        tags = self._digests.tags(context.dataset.samples)
        self._bring_part(inspect, both)
        self._context = context = inspect.readable(context)
        self._note_tables(inspect)
        if data.balanced:
            settings = data.model_dump(
                mode="json", include={"drop_classes", "only_classes", "balance"}
            )
            seen = digest_of(settings, context.recipe.seed, tags, both)
            self._bring_part(balance, seen, (inspect.NAME,))
            self._context = balance.balanced(context)

    def _bring_engine(self) -> None:
        """What is said of all masks, and their pictures."""
        context = self._context
        own, both = context.mask_steps(held_out=False), context.mask_steps()
        measured = (*both, *evaluate.object_steps(context))

        def seen(steps: Iterable[Step]) -> list[str]:
            return [self._digests.seen(context.photos(step), step.long_side) for step in steps]

        def names(steps: Iterable[Step]) -> tuple[str, ...]:
            return tuple(step.name for step in steps)

        held_out = self._digests.files(context.tried_on())
        truth = [
            self._digests.masks(samples)
            for samples in (context.masked_samples(), context.tried_on())
        ]
        data, count = context.recipe.data, context.recipe.report.panels
        if own:
            self._bring_part(assess, digest_of(seen(own)), names(assess.reads(context)))
            self._bring_part(confidence, digest_of(seen(own)), names(confidence.reads(context)))
        compared = digest_of(seen(both), truth, held_out, data.split, data.held_out)
        told = (confidence.NAME,) if own else ()
        self._bring_part(evaluate, compared, (*names(measured), *told))
        self._bring_part(panels, digest_of(seen(both), truth, held_out, count), names(both))

    def _bring_step(self, step: Step, context: Context, whole: bool = True) -> None:
        unit = _Unit(
            step.name,
            self._fingerprint(step),
            partial(run_step, step, context),
            lambda: outputs_of(step, context.photos(step)),
            step.folder,
        )
        self._bring(unit, whole)
        if Artefact.MASKS in step.gives:
            write_classes(step.folder, context.dataset.classes)

    def _fingerprint(self, step: Step) -> str:
        """Of a step's settings and inputs, the version of its kind, and the data that it sees."""
        if step.name not in self._fingerprints:
            photos = self._context.photos(step)
            if step.kind.photos == "held out":
                seen = self._digests.files(photos.samples)
            else:
                seen = self._digests.seen(photos, step.long_side)
            self._fingerprints[step.name] = fingerprint_of(
                step, [self._fingerprint(given) for _, given in step.inputs], seen
            )
        return self._fingerprints[step.name]

    def _is_known(self, step: Step) -> bool:
        known = self._record.steps.get(step.name)
        return known is not None and known.fingerprint == self._fingerprint(step)

    def _is_finished(self, step: Step) -> bool:
        return self._is_known(step) and self._record.steps[step.name].finished

    def _bring_part(self, part: _Part, seen: str, reads: tuple[str, ...] = ()) -> None:
        """Bring what the engine adds up to date.

        Args:
            seen: a digest of the data and settings that it sees.
            reads: names of the units whose files it reads.
        """
        context = self._context
        known = [self._fingerprints[other] for other in reads]
        found = digest_of(part.NAME, known, seen, context.device.type)
        self._fingerprints[part.NAME] = found
        run, outputs = partial(part.run, context), partial(part.outputs, context)
        self._bring(_Unit(part.NAME, found, run, outputs, context.folder / part.PLACE))

    def _bring(self, unit: _Unit, whole: bool = True) -> None:
        """Do a unit unless it is finished; one that is not `whole` has other photos to come."""
        record, folder = self._record, self._context.folder
        known = record.steps.get(unit.name)
        self._begun += whole
        if known and known.fingerprint == unit.fingerprint:
            if self._put_right(unit, known) and known.finished:
                self._context.progress.say(f"{unit.name}: up to date")
                return
        else:
            # First the record: a kill amid the removal must not leave half of it up to date.
            record.steps.pop(unit.name, None)
            write_record(folder, record)
            remove(unit.place)
            known = StepRecord(fingerprint=unit.fingerprint)
        known.finished = False
        if not unit.place.suffix:
            unit.place.mkdir(parents=True, exist_ok=True)
            remove_partial_files(unit.place)
        record.steps[unit.name] = known
        write_record(folder, record)
        if whole:
            self._say_begun(unit.name)
        start = time.monotonic()
        try:
            unit.run()
            sync_files(output.path for output in unit.outputs() if output.path.is_file())
            known.finished = whole
        finally:
            known.seconds = round(known.seconds + time.monotonic() - start, 2)
            known.digests = self._tables(unit.outputs())
            known.settled = last_change(unit.outputs()) if known.finished else 0
            write_record(folder, record)

    def _say_begun(self, name: str) -> None:
        """Which part of the run begins, and what it and those behind it take, where it is known."""
        names = [step.name for step in self._kept]
        ahead = names[names.index(name) :] if name in names else []
        known = [self._expected[one] for one in ahead if one in self._expected]
        unknown = [one for one in ahead if one not in self._expected]
        said = f"step {self._begun} of {self._count}: {name}"
        if known:
            said += f"; some {preview.duration(sum(known))} left for the run"
            said += f", without {listed(unknown, 3)}" if unknown else ""
        self._context.progress.say(said)

    def _put_right(self, unit: _Unit, known: StepRecord) -> bool:
        """Remove what is not as the unit left it, for it to be made again.

        Of a missing or broken file nothing was made; of another photo's something may have been,
        and all that was made of it starts anew.

        Returns:
            Whether all that the unit writes is there.
        """
        record, folder = self._record, self._context.folder
        digests = {folder / path: text for path, text in known.digests.items()}
        number, first, changed = 0, None, []
        for path, fault in find_faults(unit.outputs(), digests, known.settled):
            number += 1
            first = first or (path, fault)
            if fault is not Fault.MISSING:  # what a million photos may be, and nothing is done of
                changed.append((path, fault))
        if known.finished and first:
            path, fault = first
            self._context.progress.say(
                f"{unit.name}: {number} files are not as they were written, such as {path} "
                f"({fault.value}): made again"
            )
        if any(fault is Fault.FOREIGN for _, fault in changed):
            said = {assess.NAME, confidence.NAME, evaluate.NAME, panels.NAME}
            stale = _made_of(unit.name, self._context.steps) | said
            record.steps = {name: its for name, its in record.steps.items() if name not in stale}
            record.steps[unit.name] = known
        if changed:
            # First the record: a kill amid the removal must not leave the rest to be believed.
            known.finished = False
            write_record(folder, record)
        for path, _ in changed:
            remove(path)
        return not number

    def _tables(self, outputs: Iterable[Output]) -> dict[str, str]:
        """Digests of the tables among some files, by path in the run's folder."""
        paths = (output.path for output in outputs)
        tables = (path for path in paths if path.suffix in TABLES and path.is_file())
        return {path.relative_to(self._context.folder).as_posix(): digest(path) for path in tables}

    def _note_tables(self, part: _Part) -> None:
        known = self._record.steps[part.NAME]
        if known.digests != (noted := self._tables(part.outputs(self._context))):
            known.digests = noted
            write_record(self._context.folder, self._record)


def run_step(step: Step, context: Context) -> None:
    """Write what a step gives into its folder, but for the photos' files that are there."""
    tools = context.tools(step)
    if step.kind.run:
        step.kind.run(step, tools)
        return
    written = suffixes(step)

    def is_done(sample: Sample) -> bool:
        return all((step.folder / f"{sample.id}{suffix}").exists() for suffix in written)

    executor = context.network if step.uses_network else context.cpu
    map_photos(tools, step.name, Writer(step), is_done, executor, by_size=step.uses_network)


def _kept_inputs(step: Step) -> tuple[str, ...]:
    """Names of the steps whose files a step reads, through those that are not kept."""
    names: list[str] = []
    for _, given in step.inputs:
        names += [given.name] if given.kept else _kept_inputs(given)
    return tuple(names)


def _made_of(name: str, steps: Sequence[Step]) -> set[str]:
    """Names of the steps that a step's files went into."""
    found = {name}
    for step in steps:
        if found.intersection(_kept_inputs(step)):
            found.add(step.name)
    return found


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


def _describe_photos(context: Context) -> str:
    """How many photos got a mask, and how many were left out, and why."""
    masked = len(context.masked_samples()) if context.mask_steps(held_out=False) else 0
    reasons = ", ".join(f"{number} {why}" for why, number in context.left_out.items())
    return f"{masked} photos have a mask; left out: {reasons or 'none'}"


def _say_left_out(progress: Progress, what: str, ids: Sequence[str]) -> None:
    if ids:
        progress.say(f"left out: {len(ids)} {what}, such as {quoted(ids[0])}")


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
