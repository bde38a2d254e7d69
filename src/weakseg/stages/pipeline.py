"""Which stages a recipe asks for, in order, and what each depends on."""

from typing import Any

from pydantic import TypeAdapter

from weakseg.recipe import Recipe
from weakseg.stages import classify, evaluate, inspect, localize, panels, pool, refine, screen
from weakseg.stages.base import Stage

SEEDS = {"cam": "multi-scale class activation maps of the classifier, thresholded (paper A, eq. 3)"}

REFINERS = {
    "svm": "an SVM per image on shallow features, from confident samples (paper A)",
    "crf": "the fully connected CRF, over any labels or scores",
}


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of refined pixel-labeling (paper A)."""
    values: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    seed = {"seed": values["seed"]}
    threshold = {"cam_threshold": values["evaluate"]["cam_threshold"]}
    thresholds = {
        key: values["svm"][key] for key in ("foreground_threshold", "background_threshold")
    }
    long_side = {"long_side": values["data"]["long_side"]}
    backbone = {"backbone": values["backbone"]}
    pooling = backbone | long_side | {"precision": values["classify"]["precision"]}
    training = seed | backbone | values["classify"]
    pooled = recipe.trains_on_pooled_features
    learned_from: tuple[str, ...] = (pool.NAME if pooled else inspect.NAME,)
    screening: tuple[Stage, ...] = ()
    if missing := values["missing_tags"]:
        action = missing.pop("action")
        settings = training | long_side | missing
        screening = (Stage(screen.NAME, screen.run, learned_from, settings),)
        if action != "list":
            training |= {"missing_tags": action}
            learned_from += (screen.NAME,)
    return (
        Stage(inspect.NAME, inspect.run),
        *([Stage(pool.NAME, pool.run, (inspect.NAME,), pooling)] if pooled else []),
        *screening,
        Stage(classify.NAME, classify.train, learned_from, training),
        Stage(localize.NAME, localize.run, (classify.NAME,), long_side | values["localize"]),
        Stage(localize.CAM, localize.run_cam, (localize.NAME,), threshold),
        Stage(localize.SEED, localize.run_seed, (localize.NAME,), thresholds),
        Stage(refine.SVM, refine.run_svm, (localize.NAME,), seed | values["svm"]),
        Stage(refine.SVM_CRF, refine.run_svm_crf, (refine.SVM,), long_side | values["crf"]),
        Stage(
            refine.CAM_CRF,
            refine.run_cam_crf,
            (localize.NAME,),
            long_side | threshold | values["cam_crf"],
        ),
        Stage(
            evaluate.NAME,
            evaluate.run,
            evaluate.MASK_STAGES,
            threshold | {"split": values["data"]["split"]},
            reads_masks=True,
            output=evaluate.METRICS,
        ),
        Stage(
            panels.NAME,
            panels.run,
            (localize.SEED, refine.SVM, refine.SVM_CRF),
            values["report"],
            reads_masks=True,
        ),
    )
