"""The recipe: every number of a run, typed, checked as a whole before anything starts."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
    with_config,
)

from weakseg import safe_yaml
from weakseg.data.balance import Balance
from weakseg.errors import WeaksegError, nearest, quoted, shortened, unknown_name
from weakseg.files import absolute
from weakseg.names import AugmentationName, Head, shipped_recipes
from weakseg.refine.settings import CRFSettings, RandomWalkSettings, SVMSettings
from weakseg.training.optimizers import SGD, Adam, AdamW, Optimizer

_LARGEST_SIDE = 4096
"""Pixels: what a network holds of one photo of this side takes gigabytes."""
_MOST_EXAMPLES = 1_000_000
_MOST_PROBLEMS = 10

Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def _ordered(sides: tuple[int, int]) -> tuple[int, int]:
    if sides[0] > sides[1]:
        raise ValueError(f"{list(sides)} is no range; expected [smaller, larger]")
    return sides


def _absolute(path: str) -> str:
    return str(absolute(path))


def _absolute_weights(source: str) -> str:
    return source if source in ("imagenet", "none") else _absolute(source)


LongSideRange = Annotated[
    tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(le=_LARGEST_SIDE)]],
    AfterValidator(_ordered),
]
Scales = Annotated[
    tuple[Annotated[float, Field(ge=0.05, le=8)], ...], Field(min_length=1, max_length=16)
]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
for _settings in (SVMSettings, CRFSettings, RandomWalkSettings, Balance, SGD, Adam, AdamW):
    with_config(_STRICT)(_settings)  # an unknown key is an error here as well


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, **_STRICT)


class Data(Section):
    """Which photos: a split of the data set, or `all`.

    `held_out` is the split whose photos the trained segmentation network is tried on; by default
    the same as `split`. Nothing is learned from it, and its photos need no tags.

    `drop_classes` are classes whose tags are not used, nor photos of nothing else; with
    `only_classes` these are all classes but the named ones. `balance` says how many photos a class
    has at most (others are left out of the run) and at least (photos are repeated in training); see
    `weakseg.data.balance`.

    Photos with a longer side than `long_side` pixels are worked on at that size; their masks have
    the photo's own.
    """

    split: str = "train"
    held_out: str | None = None
    drop_classes: tuple[str, ...] = ()
    only_classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    balance: Balance | None = None
    long_side: Annotated[int, Field(ge=32, le=2 * _LARGEST_SIDE)] = 1024

    @property
    def balanced(self) -> bool:
        """Whether anything is left out or repeated."""
        return bool(self.drop_classes or self.only_classes or self.balance)

    def dropped(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes, of those of the data set, that are left out."""
        only = classes if self.only_classes is None else self.only_classes
        return tuple(c for c in classes if c in self.drop_classes or c not in only)


class BackboneSection(Section):
    """See `weakseg.networks.backbones.Backbone`."""

    name: str
    weights: Annotated[str, AfterValidator(_absolute_weights)] = "imagenet"
    output_stride: Literal[8, 16, 32] = 32
    dilated: bool = True
    head_convolution: bool = True
    frozen_stages: Annotated[int, Field(ge=-1)] = 0

    @property
    def frozen(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.frozen_stages == -1


class Training(Section):
    """How a network is trained.

    `long_side` is the range from which a photo's longer side is drawn; `crop` the side of the
    square that is cut from it; `augmentation` one of `weakseg.training.augment`. The learning rate
    decays as `(1 - step / steps) ** decay_power`: 0 keeps it as it is.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=_MOST_EXAMPLES)]
    long_side: LongSideRange = (320, 640)
    crop: Annotated[int, Field(ge=32, le=_LARGEST_SIDE)] = 512
    augmentation: AugmentationName = "flip"
    optimizer: Annotated[Optimizer, Field(discriminator="name")]
    decay_power: Annotated[float, Field(ge=0, le=100)] = 0.9
    precision: Precision = "32-true"


class Classify(Training):
    """Training of the classifier on tags.

    `head` is one of `weakseg.networks.cam_classifier.CamClassifier`'s; what it adds to the backbone
    has `head_lr`. A backbone that is frozen as a whole, under a linear head, sees each photo whole,
    and its mirror image, once: `long_side`, `crop` and `augmentation` are not used.
    """

    head: Head = "linear"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1


class MissingTags(Section):
    """What becomes of tags that nobody gave and a classifier is sure of; see `stages.screen`.

    A tag is found where its confidence is over `confidence`, by the network of one of `folds`
    folds. `list` only lists what is found, `add` has later stages see it as given, and with
    `mask` it counts neither as there nor as absent when the classifier is trained and judged.
    """

    action: Literal["list", "add", "mask"] = "list"
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    folds: Annotated[int, Field(ge=2, le=100)] = 3


class Localize(Section):
    """CAMs and shallow features. `every: 4` takes every fourth photo, to try settings on.

    `feature_stages` are indices of the backbone's stages, fine to coarse, from 0;
    `feature_scales` is a subset of `scales`. Without `keep` they are not written, 2 MB a photo: a
    photo goes to its mask in one step, and that mask is all that a run has of it.
    """

    scales: Scales
    feature_stages: tuple[Annotated[int, Field(ge=0)], ...]
    feature_scales: Scales
    precision: Precision = "32-true"
    every: Annotated[int, Field(ge=1, le=_MOST_EXAMPLES)] = 1
    keep: bool = True

    @model_validator(mode="after")
    def _subset(self) -> "Localize":
        missing = sorted(set(self.feature_scales) - set(self.scales))
        if missing:
            raise ValueError(f"feature_scales has {missing}, which scales has not")
        if len(set(self.feature_stages)) < len(self.feature_stages):
            raise ValueError(f"feature_stages names a stage twice: {list(self.feature_stages)}")
        return self


class Crf(Section):
    """The dense CRF, and the unary it starts from.

    `labels`: the hard labels, with `confidence`. `scores`: the softmax of the scores over
    `temperature`; beyond its limits that is the hard labels, or the same for all.
    """

    unary: Literal["labels", "scores"]
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.7
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    kernels: CRFSettings


class Irn(Training):
    """IRNet: its training on the pseudo masks of another stage, and the random walk that it guides.

    `start` names that stage. With `cam`, IRNet learns from two masks of every CAM, against constant
    backgrounds of `foreground_threshold` and of `background_threshold`, each through `crf`; what
    the first calls background and the second doesn't is ignored. The CAM is what walks. With any
    other stage its masks are learned from as they are, and walk.

    Photos of which a tag has a confidence of `min_confidence` or less are not learned from. `lr` is
    the rate of the boundary branch, `head_lr` that of the displacement branch. `threshold` is the
    constant background of the walked maps. With `instances`, objects of one class are told apart as
    well, by their displacements (`stages.irn.run_instances`).
    """

    start: str
    foreground_threshold: Fraction = 0.3
    background_threshold: Fraction = 0.05
    crf: Crf | None = None
    min_confidence: Fraction = 0
    backbone: BackboneSection
    walk: RandomWalkSettings = RandomWalkSettings()
    threshold: Fraction
    instances: bool = False

    @property
    def from_cam(self) -> bool:
        """Whether CAMs walk, rather than masks."""
        return self.start == "cam"

    @model_validator(mode="after")
    def _whole(self) -> "Irn":
        if self.from_cam and self.crf is None:
            raise ValueError("with start: cam, IRNet's labels need the section crf")
        if self.background_threshold > self.foreground_threshold:
            raise ValueError(
                f"background_threshold is {self.background_threshold}, over the "
                f"foreground_threshold of {self.foreground_threshold}"
            )
        return self


class Separate(Section):
    """A class with a classifier of its own, whose CAM, through `cam_crf`, joins other masks.

    The class may be one of `data.drop_classes`. `masks` names the stage whose masks it joins: what
    they call background, and the class's own mask does not, becomes the class.
    """

    class_name: str
    masks: str


class Segment(Training):
    """Training of the segmentation network on the masks of another stage, and its use.

    `masks` names that stage. The epoch that is kept is the best by masks held out, of the same
    stage; or by the same photos' real masks, in the folder `validation_masks`: the one use of real
    masks before evaluation, and only where a recipe names them.
    `tta_scales` are the scales of test-time augmentation, each with its mirror image.
    """

    masks: str
    backbone: BackboneSection
    batch_size: Annotated[int, Field(ge=2, le=_MOST_EXAMPLES)]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_masks: Annotated[str, AfterValidator(_absolute)] | None = None
    tta_scales: Scales = (0.5, 1.0, 2.0)


class Evaluate(Section):
    """`cam_threshold`: the constant background of a bare CAM, chosen without ground truth."""

    cam_threshold: Fraction


class Report(Section):
    """`panels`: how many photos get a panel picture."""

    panels: Annotated[int, Field(ge=0, le=_MOST_EXAMPLES)] = 12


class Recipe(Section):
    """A whole run. `seed` seeds every draw; a section that is left out leaves out its stages.

    `crf` refines the scores of `svm`, `cam_crf` the CAM, `irn_crf` the maps that `irn` walked, and
    `relabel` what the network makes of the photos that it learned from, kept to their tags.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    backbone: BackboneSection
    missing_tags: MissingTags | None = None
    classify: Classify
    localize: Localize
    svm: SVMSettings | None = None
    crf: Crf | None = None
    cam_crf: Crf | None = None
    irn: Irn | None = None
    irn_crf: Crf | None = None
    separate: Separate | None = None
    segment: Segment | None = None
    relabel: Crf | None = None
    evaluate: Evaluate
    report: Report = Report()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        if self.svm and not self.localize.feature_stages:
            raise ValueError("svm needs features: name a stage in localize.feature_stages, from 0")
        if self.crf and not self.svm:
            raise ValueError("crf refines what svm makes; add svm, or use cam_crf")
        if self.irn_crf and not self.irn:
            raise ValueError("irn_crf refines what irn makes; add irn")
        if self.separate and not self.cam_crf:
            raise ValueError("separate needs the section cam_crf")
        if self.relabel and not self.segment:
            raise ValueError("relabel takes the network that segment trains; add segment")
        if not self.localize.keep and (self.irn or self.separate):
            raise ValueError("irn and separate need CAMs that are kept; leave localize.keep true")
        if not self.localize.keep and not (self.svm or self.cam_crf):
            raise ValueError("without localize.keep a mask is made by svm or cam_crf; add one")
        made = self.mask_stages
        before_irn = tuple(name for name in made if name not in ("irn", "irn+crf", "merged"))
        for key, name, known in (
            ("irn.start", self.irn and self.irn.start, before_irn),
            ("separate.masks", self.separate and self.separate.masks, made[:-1]),
            ("segment.masks", self.segment and self.segment.masks, made),
        ):
            if name and name not in known:
                raise ValueError(f"{key} is {name!r}; this recipe makes {', '.join(known)}")
        return self

    @property
    def mask_stages(self) -> tuple[str, ...]:
        """Names of the stages that make a mask of every photo of the split before a network does.

        Where CAMs are not kept, that is one: the SVM's, through the CRF if there is one.
        """
        if not self.localize.keep:
            return ("svm+crf" if self.crf else "svm" if self.svm else "cam+crf",)
        made = {
            "cam": True,
            "seed": self.svm,
            "svm": self.svm,
            "svm+crf": self.crf,
            "cam+crf": self.cam_crf,
            "irn": self.irn,
            "irn+crf": self.irn_crf,
            "merged": self.separate,
        }
        return tuple(name for name, section in made.items() if section)

    @property
    def final_masks(self) -> str:
        """Name of the stage that makes the most refined masks of the split's photos."""
        if self.relabel:
            return "relabel"
        ranked = ("merged", "irn+crf", "irn", "svm+crf", "svm", "cam+crf", "cam")
        return next(name for name in ranked if name in self.mask_stages)

    @property
    def trains_on_pooled_features(self) -> bool:
        """Whether the classifier needs no more of a photo than its pooled features, made once."""
        return self.backbone.frozen and self.classify.head == "linear"


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it as a whole.

    Args:
        name_or_path: a shipped recipe's name, or the path of a YAML file.
        overrides: `section.key=value` strings; values are YAML.

    Raises:
        WeaksegError: an unknown name, a file that is no YAML, or keys and values that the recipe
            can't have; one message lists every problem, up to ten.
    """
    values = _parse(_read(name_or_path), name_or_path)
    for override in overrides:
        _apply(values, override)
    return check_recipe(values, name_or_path)


def check_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe's values; `origin` names them in the error.

    Raises:
        WeaksegError: lists every problem, up to ten.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = _causes(error.errors())
        shown = [_describe(problem) for problem in problems[:_MOST_PROBLEMS]]
        if more := len(problems) - len(shown):
            shown.append(f"and {more} more")
        raise WeaksegError(f"Recipe {origin}: {'; '.join(shown)}.") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    values = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    return yaml.safe_dump(values, sort_keys=False)


def _read(name_or_path: str) -> str:
    if name_or_path in shipped_recipes():
        return (files("weakseg") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("recipe", name_or_path, shipped_recipes())
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeaksegError(f"The recipe {path} can't be read: {error}.") from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        values = safe_yaml.parse(text)
    except ValueError as error:
        raise WeaksegError(f"{origin} is no YAML: {error}.") from error
    if not isinstance(values, dict):
        raise WeaksegError(f"{origin} is no recipe: expected sections such as 'classify:'.")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    given = quoted(override)
    *sections, last = parts = key.split(".")
    if not equals or not all(parts):
        raise WeaksegError(f"Override {given}: expected section.key=value.")
    node = values
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise WeaksegError(f"Override {given}: {quoted(section)} is a value, no section.")
    try:
        node[last] = safe_yaml.parse(text)
    except ValueError as error:
        raise WeaksegError(f"Override {given}: the value is no YAML: {error}.") from error


def _causes(problems: Sequence[Any]) -> list[Any]:
    """Without the lists that are too short only because an item of them is wrong."""
    within = {problem["loc"][:-1] for problem in problems}
    return [p for p in problems if p["type"] != "too_short" or p["loc"] not in within]


def _describe(problem: Any) -> str:
    where = shortened(".".join(str(part) for part in problem["loc"] if part not in _OPTIMIZERS))
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_beside(problem["loc"])
        hint = nearest(str(problem["loc"][-1]), known)
        meant = f" (did you mean {hint}?)" if hint else ""
        section = where.rpartition(".")[0] if len(problem["loc"]) > 1 else "a recipe"
        return f"unknown key {where}{meant}; {section} has {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "list: [a, b]")
    said = problem["type"] in ("missing", "value_error")
    given = "" if said else f", given {shortened(repr(problem['input']))}"
    if problem["type"] == "string_type" and not isinstance(problem["input"], dict | list):
        given += "; what YAML reads as yes or no, a number or a date needs quotes to be a name"
    return f"{where}: {message}{given}" if where else message


_OPTIMIZERS = ("sgd", "adam", "adamw")
"""Parts of a problem's place that tell which of several kinds a section was taken for."""


def _keys_beside(place: Sequence[str | int]) -> list[str]:
    """The keys of the section that a key, known or not, stands in."""
    schema = Recipe.model_json_schema()
    sections = [schema]
    for part in place[:-1]:
        sections = [inner for section in sections for inner in _inside(section, part, schema)]
    return list(dict.fromkeys(key for section in sections for key in section["properties"]))


def _inside(
    section: dict[str, Any], part: str | int, schema: dict[str, Any]
) -> list[dict[str, Any]]:
    """What `part` of a section may be, of a JSON schema; only what has keys."""
    if part in _OPTIMIZERS:
        return [section] if section["properties"]["name"]["const"] == part else []
    found, places = [], [section["properties"][part]]
    for place in places:
        places += [*place.get("anyOf", ()), *place.get("oneOf", ())]
        if "$ref" in place:
            places.append(schema["$defs"][place["$ref"].rpartition("/")[2]])
        if "properties" in place:
            found.append(place)
    return found
