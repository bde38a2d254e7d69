import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import EVERY_KIND, IRN, SEGMENT, SGD, STEPS, UNKEPT, tiny_recipe, tiny_values
from weakseg.errors import WeaksegError, shortened
from weakseg.methods import KINDS
from weakseg.names import shipped_recipes
from weakseg.recipe import RESERVED, Recipe, check_recipe, dump_recipe, load_recipe
from weakseg.training.optimizers import Adam

SCREEN = "screen={kind: missing_tags, of: classify}"
SECOND = (
    f"second={{kind: classifier, of: [pool, screen], epochs: 1, batch_size: 2, optimizer: {SGD}}}"
)


def settings(recipe: Recipe, name: str) -> Any:
    return next(section.settings for section in recipe.steps if section.name == name)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_whole_and_says_how_to_start_it(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.steps
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
    classifier, svm = settings(recipe, "classify"), settings(recipe, "svm")
    assert classifier.backbone.name == "resnet50.tv_in1k"
    assert (classifier.backbone.output_stride, classifier.backbone.dilated) == (16, False)
    assert settings(recipe, "localize").scales == (0.5, 1.0, 1.5, 2.0)
    assert (svm.foreground_threshold, svm.background_threshold) == (0.2, 0.05)
    assert (svm.samples_per_class, svm.exclusion_threshold, svm.cycles) == (2500, 0.2, 5)
    assert classifier.optimizer.momentum == 0


def test_overrides_change_single_values() -> None:
    recipe = load_recipe("demo", ["svm.cycles=2", "svm.exclusion_threshold=null", "seed=7"])
    svm = settings(recipe, "svm")
    assert (svm.cycles, svm.exclusion_threshold, recipe.seed) == (2, None, 7)


def test_an_override_starts_a_step_that_a_dumped_recipe_lacks(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(load_recipe("demo")))
    assert "screen" not in {section.name for section in load_recipe(str(path)).steps}
    overrides = [SCREEN, "screen.action=mask", "localize.of=second", SECOND]
    recipe = load_recipe(str(path), overrides)
    assert settings(recipe, "screen").action == "mask"
    (second,) = (step for step in recipe.steps if step.name == "second")
    assert [(slot, given.name) for slot, given in second.inputs] == [
        ("features", "pool"),
        ("tags", "screen"),
    ]


def test_papers_adam_keeps_its_rates() -> None:
    adam = "{name: adam, lr: 1.0e-4, head_lr: 1.0e-3, weight_decay: 1.0e-5}"
    recipe = load_recipe("demo", [f"classify.optimizer={adam}", "classify.decay_power=0"])
    assert settings(recipe, "classify").optimizer == Adam("adam", 1e-4, 1e-3, 1e-5)


def test_pooled_features_are_enough_for_a_linear_head_alone() -> None:
    assert settings(load_recipe("demo"), "classify").head == "linear"
    with pytest.raises(WeaksegError, match="head is for training on photos; name a backbone"):
        load_recipe("demo", ["classify.head=extra_convolutions"])


def test_an_override_changes_no_alias() -> None:
    recipe = load_recipe("demo", ["svm+crf.kernels.bilateral_compat=4"])
    assert settings(recipe, "svm+crf").kernels.bilateral_compat == 4
    assert settings(recipe, "cam+crf").kernels.bilateral_compat == 10


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["svm.cicles=2"], ["svm.cicles", "did you mean cycles"]),
        (["svm.cycles=-1"], ["svm", "cycles"]),
        (["svm.background_threshold=0.9"], ["svm", "0.9"]),
        (["clasify.epochs=2"], ["clasify: it has no kind", "did you mean the step classify?"]),
        (
            ["svm.lr=1"],
            ["unknown key svm.lr; svm, of kind svm, has kind, of", "gamma"],
        ),
        (
            ["epochs=3"],
            ["epochs: expected a step", "mean classify.epochs or segmenter.ep"],
        ),
        (["svm.epochs=3"], ["key svm.epochs (did you mean classify.epochs or segmenter.epochs?)"]),
        (["svm.scales=[1]"], ["(did you mean pool.scales or localize.scales or segment.scales?"]),
        (["classify.optimizer.momentun=0"], ["did you mean momentum", "classify.optimizer has"]),
        (["svm+crf.kernels.sxy=1"], ["svm+crf.kernels has gaussian_sxy", "iterations"]),
        (["data.balance.moost=1"], ["did you mean most", "data.balance has most, least"]),
        (["data.drop_classes=[no]"], ["given False", "needs quotes"]),
        (["data.split=2012"], ["given 2012", "needs quotes"]),
        (["seed=2001-99-99"], ["no YAML: '2001-99-99' is no timestamp"]),
        (["svm.gamma=1e308"], ["gamma is 1e+308"]),
        (["svm+crf.temperature=1e-300"], ["svm+crf.temperature"]),
        (["classify.crop=100000"], ["classify.crop", "4096"]),
        (["classify.epochs=many"], ["classify.epochs", "'many'"]),
        (["classify.optimizer.name=rmsprop"], ["classify.optimizer", "sgd", "adam", "adamw"]),
        (["classify.head=mlp"], ["classify.head", "linear", "extra_convolutions"]),
        (["classify.augmentation=none"], ["classify.augmentation", "flip", "strong"]),
        ([SCREEN, "screen.action=drop"], ["screen.action", "list", "add", "mask"]),
        ([SCREEN, "screen.folds=1"], ["screen.folds", "1"]),
        (["classify.long_side=[640, 320]"], ["classify.long_side: [640, 320] is no range"]),
        (["localize.feature_stages=[1, 1]"], ["names a stage twice"]),
        (["seed=5000000000"], ["seed", "5000000000"]),
        (["localize.feature_scales=[3.0]"], ["feature_scales has [3.0]"]),
        (["cam.background=1.5"], ["cam.background", "1.5"]),
        (["svm+crf.kernels.bilateral_srgb=0"], ["svm+crf.kernels", "bilateral_srgb"]),
        (["svm.cycles=-1", "classify.epochs=0"], ["svm", "classify.epochs"]),
        (["svm.cycles"], ["'svm.cycles': expected step.key=value"]),
        (["=1"], ["'=1': expected step.key=value"]),
        (["svm..cycles=1"], ["'svm..cycles=1': expected step.key=value"]),
        (["data.drop_classes=no"], ["data.drop_classes: Input should be a list: [a, b]"]),
        (["seed.x=1"], ["unknown key seed.x"]),
        (["classify.epochs.x=1"], ["'epochs' is a value, no section"]),
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
    values = tiny_values(**EVERY_KIND, data={"balance": {"most": 9, "least": 2}})
    values = yaml.safe_load(dump_recipe(check_recipe(values, "base")))
    assert {step["kind"] for step in values["steps"].values()} == set(KINDS)
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


LONG = "a" * 60


@pytest.mark.parametrize(
    "override",
    [
        f"{'a' * 100_000}=1",
        f"svm.{'a' * 100_000}=1",
        f"seed.{'a' * 100_000}=1",
        "a" * 100_000,
        f"seed={'a' * 50_000}",
        f"localize.scales=[{', '.join(['9'] * 4000)}]",
        f"svm+crf.kernels={{{', '.join(f'k{i}: 1' for i in range(2000))}}}",
        f"svm.of=[{', '.join(f'a{i}' for i in range(2000))}]",
        f"svm.kind={'a' * 50_000}",
        f"steps={{{', '.join(f'a{i}: {{kind: crf, of: a{i}}}' for i in range(2000))}}}",
        f"steps={{{', '.join(f'{LONG}{i}: {{}}' for i in range(500))}}}",
    ],
)
def test_a_message_is_short_whatever_was_given(override: str) -> None:
    with pytest.raises(WeaksegError) as caught:
        load_recipe("demo", [override])
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"svm": {"kind": "svn"}}, "svm: there is no kind 'svn' (did you mean svm?); there are "),
        ({"svm": {"kind": ["svm"]}}, "svm: there is no kind ['svm']; there are tags, features, "),
        (
            {"svm": {"kind": ...}},
            "svm: it has no kind (did you mean the step svm+crf?); the kinds are tags, features, ",
        ),
        (
            {"svm": {"of": "localise"}},
            "svm.of: there is no step 'localise' (did you mean localize?); there are classify, ",
        ),
        ({"svm": {"of": [["localize"]]}}, "svm.of: there is no step ['localize']; "),
        ({"svm": {"of": {"maps": "cam"}}}, "svm.of: there is no step {'maps': 'cam'}; "),
        ({"svm": {"of": None}}, "svm.of: there is no step None; "),
        ({"svm": {"lr": 1}}, "unknown key svm.lr; svm, of kind svm, has kind, of, keep, foregr"),
        (
            {"svm": {"scales": [1]}},
            "unknown key svm.scales (did you mean localize.scales?); svm, of kind svm, has kind, ",
        ),
        (
            {"cam": {"of": "cam+crf"}},
            "cam, cam+crf: each waits for another of them, or for itself, by its `of`",
        ),
        ({"svm": {"of": "svm"}}, "svm, svm+crf: each waits for another of them, or for itself"),
        ({"svm": {"of": "cam+crf"}}, "svm.of: kind svm takes maps, and cam+crf gives masks"),
        (
            {**SEGMENT, "segmenter": {**SEGMENT["segmenter"], "of": "localize"}},
            "segmenter.of: kind deeplab takes masks, and localize gives maps",
        ),
        (
            {**IRN, "irn": {**IRN["irn"], "of": ["localize", "irnet"]}},
            "irn.of: kind walk takes an IRNet, and localize gives maps",
        ),
        ({"svm": {"of": ...}}, "svm.of: kind svm takes maps, and no step is named"),
        (
            {**IRN, "irn": {**IRN["irn"], "of": "irnet"}},
            "irn.of: kind walk takes maps or masks, and too few are named",
        ),
        (
            {"both": {"kind": "combine", "of": "cam", "how": "mean"}},
            "both.of: kind combine takes two or more of maps or masks, and too few are named",
        ),
        (
            {"seed": {"of": ["localize", "cam"]}},
            "seed.of: kind seed takes no more, and is given cam, which gives maps and masks",
        ),
        (
            {"pool": {**EVERY_KIND["pool"], "of": "localize"}},
            "pool.of: kind features takes nothing, and is given localize, which gives maps",
        ),
        (
            {"SVM": STEPS["svm"]},
            "svm and SVM differ by case alone, and would share a folder on macOS and Windows: ",
        ),
        ({"svm": {"keep": "maybe"}}, "svm.keep: expected true or false, given 'maybe'"),
        (
            {"localize": {"keep": False}},
            "localize.keep: what is not kept is computed by the one step that reads it; here these "
            "do: cam, seed, svm. Keep it, or leave the others out (localize.keep=true, ",
        ),
        ({"svm+crf": {"keep": False}}, "svm+crf.keep: what is not kept is computed by the one s"),
        ({"classify": {"keep": False}}, "classify.keep: a step of kind classifier has to be kept"),
        (
            {"segmenter": {**SEGMENT["segmenter"], "of": "cam+crf"}, "cam+crf": {"keep": False}},
            "cam+crf.keep: segmenter reads its files, so that it has to be kept",
        ),
    ],
)
def test_a_graph_that_does_not_fit_is_one_line(steps: dict[str, Any], said: str) -> None:
    with pytest.raises(WeaksegError) as caught:
        tiny_recipe(**steps)
    message = str(caught.value)
    assert message.startswith(f"Recipe tiny: {said}")
    assert "\n" not in message and len(message) < 700


NO_NAMES = [
    "",
    ".",
    "..",
    "-",
    "a/b",
    "a\\b",
    "a b",
    " svm",
    "a.b",
    "run.json",
    "ä",
    "x" * 65,
    7,
    None,
]


@pytest.mark.parametrize("name", [*NO_NAMES, *sorted(RESERVED), "Inspect"])
def test_a_step_has_a_name_that_a_folder_and_an_override_can_have(name: object) -> None:
    values = tiny_values()
    values["steps"] = {**values["steps"], name: values["steps"]["cam"]}
    with pytest.raises(WeaksegError) as caught:
        check_recipe(values, "tiny")
    (said, *others) = str(caught.value).removeprefix("Recipe tiny: ").split("; ")
    assert said.startswith(f"{shortened(repr(name))} can't be a step's name") and not others
    assert set(STEPS) | {"svm-2", "0"} == set(
        section.name for section in tiny_recipe(**{"svm-2": STEPS["svm"], "0": STEPS["seed"]}).steps
    )


def test_a_step_of_another_name_than_text_is_no_traceback() -> None:
    values = tiny_values(svm={"of": "localise"})
    values["steps"] = {7: {"kind": "tags"}, None: {}, **values["steps"]}
    with pytest.raises(WeaksegError) as caught:
        check_recipe(values, "tiny")
    for part in ("7 can't be", "None can't be", "no step 'localise' (did you mean localize?)"):
        assert part in str(caught.value)


def test_all_faults_are_in_one_line_and_what_follows_from_one_is_not_said_again() -> None:
    with pytest.raises(WeaksegError) as caught:
        tiny_recipe(
            report={"panels": -1},
            localize={"scales": []},
            cam={"background": 2},
            seed={"kind": "sead"},
            svm={"cycles": -1, "of": "nothing"},
            new={"kind": "crf"},
        )
    message = str(caught.value)
    faults = ["report.panels: ", "localize.scales: ", "cam.background: ", "seed: there is no kind"]
    faults += ["svm.of: there is no step", "svm.cycles: ", "new.unary: ", "new.kernels: "]
    for fault in faults:
        assert message.count(fault) == 1, fault
    assert message.count("; ") >= len(faults) - 1 and "svm+crf." not in message
    many = {f"new{i}": {"kind": "none"} for i in range(12)}
    with pytest.raises(WeaksegError, match=r"; and 2 more\.$"):
        tiny_recipe(**many)


def test_steps_may_stand_in_any_order_and_are_done_in_the_recipes_where_that_can_be() -> None:
    values = tiny_values(**EVERY_KIND)
    backwards = {**values, "steps": dict(reversed(values["steps"].items()))}
    one, other = check_recipe(values, "tiny"), check_recipe(backwards, "tiny")
    assert {s.name: s for s in one.steps} == {s.name: s for s in other.steps}
    for recipe in (one, other):
        done: set[str] = set()
        for step in recipe.steps:
            assert done.issuperset(given.name for _, given in step.inputs)
            done.add(step.name)
    assert [s.name for s in tiny_recipe().steps] == list(STEPS)


def test_a_recipe_of_every_kind_is_the_same_once_it_is_dumped() -> None:
    for recipe in (tiny_recipe(**EVERY_KIND), tiny_recipe(**UNKEPT)):
        assert check_recipe(yaml.safe_load(dump_recipe(recipe)), "dumped") == recipe
    (localize,) = (step for step in recipe.steps if step.name == "localize")
    assert not localize.kept


def test_a_step_that_is_null_is_left_out() -> None:
    recipe = load_recipe("demo", ["svm=null", "svm+crf=null", "segmenter.of=cam+crf"])
    assert not {"svm", "svm+crf"} & {section.name for section in recipe.steps}
    with pytest.raises(WeaksegError, match=r"svm\+crf\.of: there is no step 'svm'"):
        load_recipe("demo", ["svm=null"])
    with pytest.raises(WeaksegError, match="steps: expected named steps, such as"):
        check_recipe({"steps": {"svm": None}}, "empty")
    with pytest.raises(WeaksegError, match="steps: expected named steps, such as"):
        load_recipe("demo", ["steps=3"])


def test_a_recipe_of_the_old_form_is_told_so_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("data: {split: train}\nclassify: {epochs: 2}\nsvm: {cycles: 1}\n")
    with pytest.raises(WeaksegError) as caught:
        load_recipe(str(path))
    message = str(caught.value)
    assert "the form of an older weakseg (classify, svm beside data). Write each of" in message
    assert "\n" not in message


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
