"""What a person has said of a run's photos: strokes, accepted masks and other tags, as files.

    RUN/review/strokes/ID.json   the strokes on a photo
    RUN/review/mended/ID.png     what they make of its mask
    RUN/review/accepted/ID.png   its mask, accepted
    RUN/review/taught/ID.png     of a photo without strokes, its mask as strokes on others have it
    RUN/review/tags.json         the tags of photos that had wrong ones

Each is written whole or not at all, before the person is told so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from weakseg.data.dataset import Dataset, Sample
from weakseg.data.masks import BACKGROUND, write_mask
from weakseg.errors import WeaksegError, mismatch, quoted
from weakseg.files import read_json, remove, stamp, write_json
from weakseg.methods.maps import MASK

if TYPE_CHECKING:
    from weakseg.refine.strokes import Stroke

NAME = "review"

Content = TypeVar("Content")

_Pixel = Annotated[float, Field(ge=-1e5, le=1e5)]


class DrawnStroke(BaseModel):
    """A stroke as it is kept: `points` are (x, y), in pixels of the photo, `radius` likewise."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    points: Annotated[list[tuple[_Pixel, _Pixel]], Field(min_length=1, max_length=10_000)]
    radius: Annotated[float, Field(gt=0, le=1000)]

    def stroke(self, classes: Sequence[str]) -> "Stroke":
        """With mask ids for labels.

        Raises:
            WeaksegError: it is of no class.
        """
        if self.name != BACKGROUND and self.name not in classes:
            raise WeaksegError(
                f"A stroke is of {quoted(self.name)}, which is no class of this run."
            )
        from weakseg.refine.strokes import Stroke

        label = 0 if self.name == BACKGROUND else classes.index(self.name) + 1
        return Stroke(label, tuple(self.points), self.radius)


class Strokes(BaseModel):
    """All strokes on a photo, in their order, and whether the CRF follows them."""

    model_config = ConfigDict(extra="forbid")

    strokes: Annotated[list[DrawnStroke], Field(max_length=1000)] = []
    crf: bool = True


_STROKES = TypeAdapter(Strokes)
_TAGS = TypeAdapter(dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class Reviewed:
    """The review of a run.

    Attributes:
        folder: RUN/review, which need not be there.
    """

    folder: Path

    @classmethod
    def of(cls, run: Path) -> "Reviewed":
        """The review of the run in a folder."""
        return cls(run / NAME)

    def strokes(self, photo: str) -> Strokes:
        """The strokes on a photo; none where nobody drew any.

        Raises:
            WeaksegError: the file is damaged.
        """
        return _read(self._strokes(photo), _STROKES, "strokes") or Strokes()

    def draw(self, photo: str, strokes: Strokes, mended: NDArray[np.uint8]) -> None:
        """Keep the strokes on a photo, and the mask that they make; it is accepted no longer."""
        remove(self.accepted(photo))
        if strokes.strokes:
            write_mask(self.mended(photo), mended)
            write_json(self._strokes(photo), strokes.model_dump(mode="json"))
        else:
            remove(self._strokes(photo))
            remove(self.mended(photo))

    def accept(self, photo: str, mask: NDArray[np.uint8]) -> None:
        """Hold a photo's mask fixed."""
        write_mask(self.accepted(photo), mask)

    def reopen(self, photo: str) -> None:
        """Hold it fixed no longer."""
        remove(self.accepted(photo))

    def accepted(self, photo: str) -> Path:
        """Where an accepted mask lies, or would."""
        return self.folder / "accepted" / f"{photo}{MASK}"

    def mended(self, photo: str) -> Path:
        """Where the mask lies that a photo's strokes make, or would."""
        return self.folder / "mended" / f"{photo}{MASK}"

    def taught(self, photo: str) -> Path:
        """Where the mask lies that strokes on other photos make, or would."""
        return self.folder / "taught" / f"{photo}{MASK}"

    def taught_over(self, photo: str, masks: Path) -> Path | None:
        """The mask that was taught in place of one in a folder, unless that was made since."""
        taught, made = self.taught(photo), masks / f"{photo}{MASK}"
        if taught.is_file() and made.is_file() and stamp(taught)[1] >= stamp(made)[1]:
            return taught
        return None

    def mask(self, photo: str) -> Path | None:
        """The mask that a person has mended or accepted, if any."""
        places = (self.accepted(photo), self.mended(photo))
        return next((path for path in places if path.is_file()), None)

    def masks(self, photos: Iterable[str]) -> dict[str, Path]:
        """Those of some photos, by id."""
        if not self.folder.is_dir():
            return {}
        found = ((photo, self.mask(photo)) for photo in photos)
        return {photo: path for photo, path in found if path is not None}

    @property
    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """The tags of photos that had wrong ones, by id.

        Raises:
            WeaksegError: the file is damaged.
        """
        return _read(self._tags, _TAGS, "tags") or {}

    def tag(self, photo: str, tags: Sequence[str]) -> None:
        """Give a photo other tags."""
        write_json(self._tags, {**self.tags, photo: list(tags)})

    def retagged(self, dataset: Dataset) -> Dataset:
        """A data set under the tags of the review, and a note that says so.

        Raises:
            WeaksegError: a photo has a tag there that is no class.
        """
        tags = self.tags
        named = [sample.id for sample in dataset.samples if sample.id in tags]
        if not named:
            return dataset
        position = {name: index for index, name in enumerate(dataset.classes)}
        for photo in named:
            if strange := [tag for tag in tags[photo] if tag not in position]:
                raise WeaksegError(
                    f"{self._tags} gives {photo} the tag {quoted(strange[0])}, which is no class."
                )

        def under(sample: Sample) -> Sample:
            if sample.id not in tags:
                return sample
            return replace(sample, tags=tuple(sorted(tags[sample.id], key=position.__getitem__)))

        note = f"tags of {len(named)} photos are those of {self._tags}"
        samples = tuple(map(under, dataset.samples))
        return replace(dataset, samples=samples, notes=(*dataset.notes, note))

    @property
    def _tags(self) -> Path:
        return self.folder / "tags.json"

    def _strokes(self, photo: str) -> Path:
        return self.folder / "strokes" / f"{photo}.json"


def _read(path: Path, kind: TypeAdapter[Content], holds: str) -> Content | None:
    if not path.is_file():
        return None
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        raise WeaksegError(
            f"{path} holds no {holds} ({mismatch(error)}). Remove it to begin anew."
        ) from error
