from pathlib import Path
from typing import Any

import pytest

from tiny import SEGMENT, STEPS, Start, tiny_recipe
from weakseg.errors import WeaksegError
from weakseg.files import read_json

TERMS = {
    "sec": {"seed", "expand", "constrain"},
    "dsrg": {"background", "foreground", "boundary"},
}


def _seeded(**changes: Any) -> dict[str, Any]:
    return {**SEGMENT["segmenter"], "of": "seed", "long_side": [40, 48], **changes}


def test_a_network_learns_from_seeds_and_tags(photos: Path, start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    networks = {name: _seeded(loss={"name": name}) for name in TERMS}
    masks = {f"{name}-masks": {"kind": "segment", "of": name} for name in TERMS}
    left_out = dict.fromkeys(("cam", "cam+crf", "svm", "svm+crf"))
    data = {"split": "train", "held_out": "val"}
    start(photos, out, tiny_recipe(data=data, **left_out, **networks, **masks))
    rows = {row["name"]: row for row in read_json(out / "metrics.json")["stages"]}
    for name, terms in TERMS.items():
        scores = read_json(out / name / "scores.json")
        assert scores["miou_against"] == "held-out masks of seed"
        for epoch in scores["epochs"]:
            assert set(epoch) == {"epoch", "loss", "miou", *terms}
            assert epoch["loss"] == pytest.approx(sum(epoch[term] for term in terms), rel=1e-4)
        assert rows[f"{name}-masks"]["protocol"]["loss"] == name
        assert rows[f"{name}-masks"]["images"] == 2


def test_a_network_learns_what_two_steps_agree_on(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    both = {"kind": "combine", "of": ["cam", "svm"], "how": "agreement"}
    network = {key: value for key, value in SEGMENT["segmenter"].items() if key != "of"}
    networks = {"direct": {**network, "of": ["cam", "svm"]}, "combined": {**network, "of": "both"}}
    masks = {f"{name}-masks": {"kind": "segment", "of": name} for name in networks}
    start(
        photos,
        tmp_path,
        tiny_recipe(**{"cam+crf": None, "svm+crf": None}, both=both, **networks, **masks),
    )
    direct, combined = (tmp_path / name / "segmenter.safetensors" for name in networks)
    assert direct.read_bytes() == combined.read_bytes()
    scores = read_json(tmp_path / "direct" / "scores.json")
    assert scores["miou_against"] == "held-out masks of cam and svm"
    rows = {row["name"]: row for row in read_json(tmp_path / "metrics.json")["stages"]}
    assert rows["direct-masks"]["protocol"]["agreeing"] == "svm"


def test_masks_under_other_tags_cant_agree(photos: Path, start: Start, tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "other-tags": {"kind": "tags", "only": ["flower"]},
        "other-classify": {**STEPS["classify"], "of": "other-tags"},
        "other-localize": {"kind": "cam", "of": "other-classify", "scales": [0.5, 1.0]},
        "other-cam": {**STEPS["cam"], "of": "other-localize"},
        "segmenter": {**SEGMENT["segmenter"], "of": ["cam", "other-cam"]},
    }
    message = "segmenter: other-cam sees other tags than cam, so that their masks can't agree"
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path, tiny_recipe(**other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": {"name": "sec"}, "long_side": [40, 49]},
            r"\[40, 49\] must end at .*, 48",
        ),
        ({"accumulate": 3}, r"seeded: accumulate 3 parts batch_size 4 into no equal parts"),
        ({"accumulate": 4}, r"seeded: accumulate 4 leaves one photo of batch_size 4 to a part"),
        ({"loss": {"name": "ce"}}, r"seeded\.loss.*'ce'"),
        ({"loss": "sec"}, r"seeded\.loss"),
        ({"loss": {"name": "sec", "foreground": 0.9}}, r"seeded\.loss\.foreground"),
        ({"loss": {"name": "dsrg", "foreground": 1.5}}, r"seeded\.loss\.foreground"),
    ],
)
def test_what_cant_be_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message) as caught:
        tiny_recipe(seeded=_seeded(**changes))
    assert "\n" not in str(caught.value)
    assert tiny_recipe(seeded=_seeded(loss={"name": "dsrg"}, long_side=[40, 200]))
