"""Which stages a recipe asks for, in order, and what each depends on."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from weakseg.files import stamps
from weakseg.names import FIGURES, INSTANCES, IRN
from weakseg.recipe import BackboneSection, Irn, Recipe, Segment
from weakseg.stages import (
    assess,
    balance,
    classify,
    evaluate,
    inspect,
    irn,
    localize,
    localizer,
    panels,
    pool,
    refine,
    relabel,
    screen,
    segment,
    separate,
)
from weakseg.stages.base import Stage, files_of, masks_of
from weakseg.stages.evaluate import MaskStage


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages that a recipe's sections ask for."""
    values: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    seed = {"seed": values["seed"]}
    threshold, long_side = _cam_threshold(values), _long_side(values)
    classifier = _backbone(recipe.backbone) | {"head": values["classify"]["head"]}
    found = [
        Stage(
            inspect.NAME, inspect.run, inspect.outputs, reads_held_out=True, then=inspect.readable
        )
    ]
    training = seed | classifier | {"classify": values["classify"]}
    learned_from: tuple[str, ...] = (inspect.NAME,)
    if recipe.data.balanced:
        balancing = seed | {
            key: values["data"][key] for key in ("drop_classes", "only_classes", "balance")
        }
        found.append(
            Stage(
                balance.NAME,
                balance.run,
                files_of(balance.NAME, balance.COUNTS),
                learned_from,
                balancing,
                then=balance.balanced,
            )
        )
        learned_from = (balance.NAME,)
    if recipe.trains_on_pooled_features:
        pooling = classifier | long_side | {"precision": values["classify"]["precision"]}
        if recipe.backbone.weights == "none":
            pooling |= seed
        found.append(Stage(pool.NAME, pool.run, pool.outputs, learned_from, pooling))
        learned_from = (pool.NAME,)
    if missing := values["missing_tags"]:
        action = missing.pop("action")
        settings = training | long_side | {"missing_tags": missing}
        found.append(
            Stage(
                screen.NAME,
                screen.run,
                screen.outputs,
                learned_from,
                settings,
                then=screen.with_found_tags,
            )
        )
        if action != "list":
            training |= {"action": action}
            learned_from += (screen.NAME,)
    keep = values["localize"].pop("keep")
    localizing = long_side | {"localize": values["localize"]}
    found.append(Stage(classify.NAME, classify.train, classify.outputs, learned_from, training))
    if keep:
        masking = _refining_stages(recipe, values, localizing)
    else:
        masking = [_one_step(recipe, values, localizing)]
    found += [replace(stage, per_photo=True) for stage in masking]
    if recipe.irn:
        found += _irn_stages(values, recipe.irn)
    if recipe.irn_crf:
        settings = long_side | {"threshold": values["irn"]["threshold"], "crf": values["irn_crf"]}
        found.append(Stage(irn.IRN_CRF, irn.run_crf, masks_of(irn.IRN_CRF), (IRN,), settings))
    if recipe.separate:
        of_class = {"class_name": recipe.separate.class_name}
        settings = training | localizing | _cam_crf(values) | of_class
        merged_from = (separate.NAME, recipe.separate.masks)
        found += [
            Stage(separate.NAME, separate.run, separate.outputs, learned_from, settings),
            Stage(
                separate.MERGED,
                separate.run_merged,
                masks_of(separate.MERGED),
                merged_from,
                of_class,
            ),
        ]
    if recipe.segment:
        found += _segment_stages(values, recipe.segment)
    masks = measured(recipe)
    evaluated = tuple(stage.name for stage in masks)
    if recipe.irn and recipe.irn.instances:
        evaluated += (INSTANCES,)
    splits = {key: values["data"][key] for key in ("split", "held_out")}
    found += [
        Stage(
            assess.NAME,
            partial(assess.run, masks=recipe.final_masks),
            files_of("", assess.ASSESSMENT),
            assess.needs(recipe),
            output=assess.ASSESSMENT,
        ),
        Stage(
            evaluate.NAME,
            partial(evaluate.run, stages=masks),
            files_of("", evaluate.METRICS),
            evaluated,
            threshold | splits,
            reads_masks=True,
            reads_held_out=True,
            output=evaluate.METRICS,
        ),
        Stage(
            panels.NAME,
            partial(panels.run, stages=masks),
            partial(panels.outputs, stages=masks),
            tuple(stage.name for stage in masks),
            values["report"],
            reads_masks=True,
            reads_held_out=True,
        ),
    ]
    return tuple(found)


def _refining_stages(
    recipe: Recipe, values: dict[str, Any], localizing: dict[str, Any]
) -> list[Stage]:
    """CAMs, and what the SVM and the CRF make of them, each in files of its own."""
    found = [
        Stage(localize.NAME, localizer.run, localize.outputs, (classify.NAME,), localizing),
        Stage(
            localize.CAM,
            localize.run_cam,
            masks_of(localize.CAM),
            (localize.NAME,),
            _cam_threshold(values),
        ),
    ]
    if recipe.svm:
        thresholds = {
            key: values["svm"][key] for key in ("foreground_threshold", "background_threshold")
        }
        found += [
            Stage(
                localize.SEED,
                localize.run_seed,
                masks_of(localize.SEED),
                (localize.NAME,),
                thresholds,
            ),
            Stage(refine.SVM, refine.run_svm, refine.svm_outputs, (localize.NAME,), _svm(values)),
        ]
    if recipe.crf:
        settings = _long_side(values) | {"crf": values["crf"]}
        found.append(
            Stage(
                refine.SVM_CRF,
                refine.run_svm_crf,
                masks_of(refine.SVM_CRF),
                (refine.SVM,),
                settings,
            )
        )
    if recipe.cam_crf:
        found.append(
            Stage(
                refine.CAM_CRF,
                refine.run_cam_crf,
                masks_of(refine.CAM_CRF),
                (localize.NAME,),
                _cam_crf(values),
            )
        )
    return found


def _one_step(recipe: Recipe, values: dict[str, Any], localizing: dict[str, Any]) -> Stage:
    """The last of these masks, from photos, with no files in between."""
    (name,) = recipe.mask_stages
    refining = _svm(values) | {"crf": values["crf"]} if recipe.svm else _cam_crf(values)
    run = partial(refine.run_from_photos, name=name, by_network=localizer.by_network)
    return Stage(name, run, masks_of(name), (classify.NAME,), localizing | refining)


def _long_side(values: dict[str, Any]) -> dict[str, Any]:
    return {"data.long_side": values["data"]["long_side"]}


def _cam_threshold(values: dict[str, Any]) -> dict[str, Any]:
    return {"cam_threshold": values["evaluate"]["cam_threshold"]}


def _svm(values: dict[str, Any]) -> dict[str, Any]:
    return {"seed": values["seed"], "svm": values["svm"]}


def _cam_crf(values: dict[str, Any]) -> dict[str, Any]:
    return _long_side(values) | _cam_threshold(values) | {"cam_crf": values["cam_crf"]}


def _segment_stages(values: dict[str, Any], section: Segment) -> list[Stage]:
    long_side = _long_side(values)
    settings = dict(values["segment"]) | _backbone(section.backbone)
    taught_by = (settings.pop("masks"),)
    scales = {"tta_scales": settings.pop("tta_scales")}
    if section.validation_masks:
        settings["validation_stamps"] = stamps(Path(section.validation_masks))
    training = {"seed": values["seed"], "segment": settings}
    network = (segment.NETWORK,)
    found = [
        Stage(
            segment.NETWORK,
            segment.train,
            files_of(segment.NETWORK, FIGURES, segment.SEGMENTER),
            taught_by,
            training,
        ),
        Stage(
            segment.SEGMENT,
            segment.run,
            masks_of(segment.SEGMENT, held_out=True),
            network,
            long_side,
            reads_held_out=True,
        ),
        Stage(
            segment.TTA,
            segment.run_tta,
            masks_of(segment.TTA, held_out=True),
            network,
            long_side | scales,
            reads_held_out=True,
        ),
    ]
    if values["relabel"]:
        relabelling = long_side | scales | {"crf": values["relabel"]}
        found.append(Stage(relabel.NAME, relabel.run, masks_of(relabel.NAME), network, relabelling))
    return found


def _backbone(section: BackboneSection) -> dict[str, Any]:
    return {"backbone": section.model_dump(), "weights": stamps(Path(section.weights))}


def _irn_stages(values: dict[str, Any], section: Irn) -> list[Stage]:
    long_side = _long_side(values)
    settings = dict(values["irn"]) | _backbone(section.backbone)
    walking = {key: settings.pop(key) for key in ("walk", "threshold", "precision")}
    labelling = {
        key: settings.pop(key) for key in ("crf", "foreground_threshold", "background_threshold")
    }
    start, instances = settings.pop("start"), settings.pop("instances")
    learned_from, walked = start, start
    found = []
    if section.from_cam:
        learned_from, walked = irn.LABELS, localize.NAME
        needs = (localize.NAME,)
        found.append(
            Stage(irn.LABELS, irn.run_labels, masks_of(irn.LABELS), needs, long_side | labelling)
        )
    training = long_side | {
        "seed": values["seed"],
        "precision": walking["precision"],
        "irn": settings,
    }
    found += [
        Stage(
            irn.NETWORK,
            irn.train,
            files_of(irn.NETWORK, FIGURES, irn.IRNET),
            (learned_from, localize.NAME),
            training,
        ),
        Stage(IRN, irn.run, irn.outputs, (irn.NETWORK, walked), long_side | walking),
    ]
    if instances:
        relating = long_side | {"precision": walking["precision"]}
        split_from = (irn.NETWORK, IRN)
        found.append(Stage(INSTANCES, irn.run_instances, masks_of(INSTANCES), split_from, relating))
    return found


def measured(recipe: Recipe) -> tuple[MaskStage, ...]:
    """The stages that make masks, in order, each with its protocol."""
    by_recipe = {"threshold_source": "recipe", "crf": False}
    cam = {"threshold": recipe.evaluate.cam_threshold, **by_recipe}
    found = [MaskStage(localize.CAM, cam)]
    if recipe.svm:
        thresholds = [recipe.svm.background_threshold, recipe.svm.foreground_threshold]
        svm = {"threshold": thresholds, **by_recipe}
        found.append(MaskStage(localize.SEED, {**svm, "uncertain": "counted as wrong"}))
        found.append(MaskStage(refine.SVM, svm))
        if recipe.crf:
            found.append(MaskStage(refine.SVM_CRF, {**svm, "crf": True}))
    if recipe.cam_crf:
        found.append(MaskStage(refine.CAM_CRF, {**cam, "crf": True}))
    if recipe.irn:
        walked = {"start": recipe.irn.start, "threshold": recipe.irn.threshold, **by_recipe}
        found.append(MaskStage(IRN, walked))
        if recipe.irn_crf:
            found.append(MaskStage(irn.IRN_CRF, {**walked, "crf": True}))
    if recipe.separate:
        merged = {"masks": recipe.separate.masks, "separate": recipe.separate.class_name}
        found.append(MaskStage(separate.MERGED, {**cam, **merged}))
    if recipe.segment:
        network = {"masks": recipe.segment.masks, "crf": False}
        scales = ", ".join(f"{scale:g}" for scale in recipe.segment.tta_scales)
        found.append(MaskStage(segment.SEGMENT, network, held_out=True))
        tta = {**network, "tta": f"flip x {scales}"}
        found.append(MaskStage(segment.TTA, tta, held_out=True))
        if recipe.relabel:
            found.append(MaskStage(relabel.NAME, {**tta, "crf": True}))
    made = (*recipe.mask_stages, relabel.NAME)
    return tuple(stage for stage in found if stage.held_out or stage.name in made)
