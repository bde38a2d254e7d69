"""Which photos of a run are exported, with which masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weakseg.engine.confidence import CONFIDENCE, read_confidence
from weakseg.engine.opened import Run
from weakseg.engine.reviewed import Reviewed
from weakseg.errors import WeaksegError, quoted
from weakseg.export.base import Photo
from weakseg.methods.base import Artefact
from weakseg.methods.maps import MASK
from weakseg.progress import Progress


@dataclass(frozen=True)
class Choice:
    """What of a run is exported.

    Attributes:
        step: whose masks; None: the last that it made of the photos, or that were mended in review.
        accepted: whether of photos whose mask a person has accepted alone.
        confidence: the least, in [0, 1], that a mask must have, unless a person has accepted it;
            None: any.
    """

    step: str | None = None
    accepted: bool = False
    confidence: float | None = None


def choose(run: Run, choice: Choice, progress: Progress) -> Sequence[Photo]:
    """The photos to export, by id; an accepted mask takes the place of the step's.

    Raises:
        WeaksegError: an unknown step, one without masks, no photo at all, a bound where the run has
            no confidence of these masks, or photos that are no longer there.
    """
    step = choice.step or run.masks
    made = [name for name in run.photos(step) if run.mask_file(name, step).is_file()]
    gives = run.steps[step].gives
    if Artefact.MASKS not in gives:
        raise WeaksegError(f"{step} makes no masks. Name another step, or none for {run.masks}.")
    reviewed = Reviewed.of(run.folder)
    accepted = {name for name in made if reviewed.accepted(name).is_file()}
    confidence = _confidence(run, step, needed=choice.confidence is not None)
    ids = [name for name in made if name in accepted or not choice.accepted]
    if choice.confidence is not None:
        least = choice.confidence
        ids = [name for name in ids if name in accepted or confidence.get(name, 0) >= least]
    if not ids:
        raise WeaksegError(
            f"Of {len(made)} masks of {step} in {run.folder} none is to be exported; "
            f"{len(accepted)} are accepted. Ask for less, or run the recipe to its end."
        )
    missing = [name for name in ids if name not in run.files]
    if missing:
        raise WeaksegError(
            f"{len(missing)} of {len(ids)} photos of {run.folder} are no longer in "
            f"{run.record.data['folder']}, the first with the ID {quoted(missing[0])}. Put them "
            "back."
        )
    lacking = int(run.record.data["photos"]) - len(made)
    if choice == Choice() and lacking > 0:
        progress.say(f"{lacking} photos of the run have no mask of {step}, and are left out")
    objects = _objects(run, step)

    def photo(number: int, name: str) -> Photo:
        mask = reviewed.accepted(name) if name in accepted else run.mask_file(name, choice.step)
        own = mask == run.mask_file(name, step)
        return Photo(
            id=name,
            number=number,
            image=run.files[name],
            mask=mask,
            objects=_existing(objects, name) if own else None,
            confidence=confidence.get(name),
            accepted=name in accepted,
        )

    return [photo(number, name) for number, name in enumerate(ids, start=1)]


def _confidence(run: Run, step: str, needed: bool) -> Mapping[str, float]:
    """Of masks of a step, by id; none where the run says nothing of them."""
    of_step, _ = read_confidence(run.folder)
    if of_step == step:
        return run.confidence
    if needed:
        of = f"is of the masks of {of_step}" if of_step else "is not there"
        raise WeaksegError(
            f"{run.folder / CONFIDENCE} {of}, so that the confidence of those of {step} is "
            "unknown. Leave out --confidence"
            + (" or --step." if of_step else ", or run the recipe again.")
        )
    return {}


def _objects(run: Run, step: str) -> Path | None:
    """Where the objects of a step's masks are told apart."""
    of_it = (
        one.folder
        for one in run.steps.values()
        if Artefact.OBJECTS in one.gives and run.steps[step] in [given for _, given in one.inputs]
    )
    return next(of_it, None)


def _existing(folder: Path | None, name: str) -> Path | None:
    path = folder / f"{name}{MASK}" if folder else None
    return path if path and path.is_file() else None
