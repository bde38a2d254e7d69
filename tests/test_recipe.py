import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from weakseg.errors import WeaksegError
from weakseg.names import shipped_recipes
from weakseg.recipe import check_recipe, dump_recipe, load_recipe
from weakseg.stages.pipeline import stages
from weakseg.training.optimizers import Adam


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_whole_and_says_how_to_start_it(name: str) -> None:
    recipe = load_recipe(name)
    assert stages(recipe)
    text = Path(__file__).parents[1].joinpath(f"src/weakseg/recipes/{name}.yaml").read_text()
    comment = text.split("\nseed:")[0]
    assert all(word in comment for word in ("Needs:", "Start:", f"weakseg run {name}"))
    assert shipped_recipes()[name]


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_dumped_recipe_is_the_same_recipe(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


def test_refined_pixel_labeling_has_the_papers_numbers() -> None:
    recipe = load_recipe("refined_pixel_labeling")
    assert recipe.backbone.name == "resnet50.tv_in1k"
    assert (recipe.backbone.output_stride, recipe.backbone.dilated) == (16, False)
    assert recipe.localize.scales == (0.5, 1.0, 1.5, 2.0)
    svm = recipe.svm
    assert (svm.foreground_threshold, svm.background_threshold) == (0.2, 0.05)
    assert (svm.samples_per_class, svm.exclusion_threshold, svm.cycles) == (2500, 0.2, 5)
    assert recipe.classify.optimizer.momentum == 0


def test_overrides_change_single_values() -> None:
    recipe = load_recipe("demo", ["svm.cycles=2", "svm.exclusion_threshold=null", "seed=7"])
    assert (recipe.svm.cycles, recipe.svm.exclusion_threshold, recipe.seed) == (2, None, 7)


def test_an_override_starts_a_section_that_a_dumped_recipe_lacks(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(load_recipe("demo")))
    assert load_recipe(str(path)).missing_tags is None
    recipe = load_recipe(str(path), ["missing_tags.action=mask"])
    assert recipe.missing_tags is not None
    assert recipe.missing_tags.action == "mask"


def test_papers_adam_keeps_its_rates() -> None:
    adam = "{name: adam, lr: 1.0e-4, head_lr: 1.0e-3, weight_decay: 1.0e-5}"
    recipe = load_recipe("demo", [f"classify.optimizer={adam}", "classify.decay_power=0"])
    assert recipe.classify.optimizer == Adam("adam", 1e-4, 1e-3, 1e-5)


def test_pooled_features_are_enough_for_a_linear_head_alone() -> None:
    assert load_recipe("demo").trains_on_pooled_features
    for override in ("classify.head=extra_convolutions", "backbone.frozen_stages=2"):
        assert not load_recipe("demo", [override]).trains_on_pooled_features


def test_an_override_changes_no_alias() -> None:
    recipe = load_recipe("demo", ["crf.kernels.bilateral_compat=4"])
    assert recipe.crf.kernels.bilateral_compat == 4
    assert recipe.cam_crf.kernels.bilateral_compat == 10


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["svm.cicles=2"], ["svm.cicles", "did you mean cycles"]),
        (["svm.cycles=-1"], ["svm", "cycles"]),
        (["svm.background_threshold=0.9"], ["svm", "0.9"]),
        (["clasify.epochs=2"], ["clasify", "did you mean classify"]),
        (["svm.lr=1"], ["unknown key svm.lr; svm has foreground_threshold", "gamma"]),
        (["epochs=3"], ["unknown key epochs; a recipe has seed, data", "report"]),
        (["classify.optimizer.momentun=0"], ["did you mean momentum", "classify.optimizer has"]),
        (["crf.kernels.sxy=1"], ["crf.kernels has gaussian_sxy", "iterations"]),
        (["data.balance.moost=1"], ["did you mean most", "data.balance has most, least"]),
        (["data.drop_classes=[no]"], ["given False", "needs quotes"]),
        (["data.split=2012"], ["given 2012", "needs quotes"]),
        (["seed=2001-99-99"], ["no YAML: '2001-99-99' is no timestamp"]),
        (["localize.feature_stages=[]"], ["svm needs features"]),
        (["svm.gamma=1e308"], ["gamma is 1e+308"]),
        (["crf.temperature=1e-300"], ["crf.temperature"]),
        (["classify.crop=100000"], ["classify.crop", "4096"]),
        (["classify.epochs=many"], ["classify.epochs", "'many'"]),
        (["classify.optimizer.name=rmsprop"], ["classify.optimizer", "sgd", "adam", "adamw"]),
        (["classify.head=mlp"], ["classify.head", "linear", "extra_convolutions"]),
        (["classify.augmentation=none"], ["classify.augmentation", "flip", "strong"]),
        (["missing_tags.action=drop"], ["missing_tags.action", "list", "add", "mask"]),
        (["missing_tags.folds=1"], ["missing_tags.folds", "1"]),
        (["classify.long_side=[640, 320]"], ["classify.long_side: [640, 320] is no range"]),
        (["localize.feature_stages=[1, 1]"], ["names a stage twice"]),
        (["seed=5000000000"], ["seed", "5000000000"]),
        (["localize.feature_scales=[3.0]"], ["feature_scales has [3.0]"]),
        (["evaluate.cam_threshold=1.5"], ["evaluate.cam_threshold", "1.5"]),
        (["crf.kernels.bilateral_srgb=0"], ["crf.kernels", "bilateral_srgb"]),
        (["svm.cycles=-1", "classify.epochs=0"], ["svm", "classify.epochs"]),
        (["svm.cycles"], ["'svm.cycles': expected section.key=value"]),
        (["=1"], ["'=1': expected section.key=value"]),
        (["svm..cycles=1"], ["'svm..cycles=1': expected section.key=value"]),
        (["data.drop_classes=no"], ["data.drop_classes: Input should be a list: [a, b]"]),
        (["seed.x=1"], ["'seed' is a value"]),
        (["seed=[1"], ["no YAML"]),
    ],
)
def test_one_line_names_every_problem(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(WeaksegError) as caught:
        load_recipe("demo", overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_list_of_a_wrong_item_is_not_called_too_short_as_well() -> None:
    with pytest.raises(WeaksegError, match=r"localize\.scales\.0: .* given 100\.$"):
        load_recipe("demo", ["localize.scales=[100]"])
    with pytest.raises(WeaksegError, match=r"localize\.scales: .* at least 1 item"):
        load_recipe("demo", ["localize.scales=[]"])


def test_no_number_is_taken_at_the_ends_of_its_type() -> None:
    """Whatever key holds numbers: neither NaN, nor infinity, nor what float32 has no room for."""
    values = yaml.safe_load(dump_recipe(load_recipe("three_step_cpu")))
    whole = values["cam_crf"]
    values["svm"], values["crf"], values["relabel"] = {"cycles": 1}, whole, whole
    values["missing_tags"], values["data"]["balance"] = {"folds": 2}, {"most": 9, "least": 2}
    values["localize"]["feature_stages"] = [0]
    check_recipe(values, "base")
    places = list(_numbers(values))
    assert len(places) > 60
    for place, number in places:
        for extreme in (math.nan, math.inf, -math.inf, 1e308):
            with pytest.raises(WeaksegError) as caught:
                check_recipe(_with(values, place, extreme), "extreme")
            assert "\n" not in str(caught.value), (place, number)


def _numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _numbers(inner, (*place, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def _with(values: Any, place: tuple[Any, ...], number: float) -> Any:
    changed = copy.deepcopy(values)
    node = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = number
    return changed


@pytest.mark.parametrize(
    "override",
    [
        f"{'a' * 100_000}=1",
        f"svm.{'a' * 100_000}=1",
        f"seed.{'a' * 100_000}=1",
        "a" * 100_000,
        f"seed={'a' * 50_000}",
        f"localize.scales=[{', '.join(['9'] * 4000)}]",
        f"crf.kernels={{{', '.join(f'k{i}: 1' for i in range(2000))}}}",
    ],
)
def test_a_message_is_short_whatever_was_given(override: str) -> None:
    with pytest.raises(WeaksegError) as caught:
        load_recipe("demo", [override])
    assert len(str(caught.value)) < 3000


def test_unknown_and_broken_recipes(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="Did you mean 'demo'"):
        load_recipe("demos")
    with pytest.raises(WeaksegError, match="can't be read"):
        load_recipe(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(WeaksegError, match="is no YAML"):
        load_recipe(str(broken))
    broken.write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(WeaksegError, match="is no recipe"):
        load_recipe(str(broken))
    broken.write_text("data: {split: train}\ndata: {split: val}")
    with pytest.raises(WeaksegError, match="the key 'data' is there 2 times"):
        load_recipe(str(broken))
    with pytest.raises(WeaksegError) as caught:
        load_recipe("x" * 100_000)
    assert len(str(caught.value)) < 500
