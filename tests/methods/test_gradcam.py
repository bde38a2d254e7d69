from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tiny import Start, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.errors import WeaksegError
from weakseg.files import read_json


def test_by_gradients_the_final_map_is_the_cam_and_a_stage_makes_masks(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    start(
        photos,
        tmp_path,
        tiny_recipe(
            **dict.fromkeys(("seed", "cam+crf", "svm", "svm+crf")),
            localize={"feature_stages": []},
            final={"kind": "gradcam", "of": "classify", "scales": [0.5, 1.0]},
            fine={
                "kind": "gradcam",
                "of": "classify",
                "method": "layer-cam",
                "layer": 1,
                "scales": [1.0],
                "merging": {"normalize": "each_scale"},
            },
            both={"kind": "combine", "of": ["final", "fine"], "how": "maximum"},
            masks={"kind": "threshold", "of": "both", "background": 0.4},
        ),
    )
    for sample in load_dataset(photos).samples:
        cam, final, fine = (
            safetensors.numpy.load_file(tmp_path / step / f"{sample.id}.safetensors")["scores"]
            for step in ("localize", "final", "fine")
        )
        np.testing.assert_allclose(final, cam, atol=1e-3)
        assert fine.dtype == np.float32 and fine.shape == cam.shape
        assert 0 <= fine.min() <= fine.max() <= 1
        assert (tmp_path / "masks" / f"{sample.id}.png").is_file()
    rows = {row["name"] for row in read_json(tmp_path / "metrics.json")["stages"]}
    assert {"masks", "masks-oracle"} <= rows


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (5, r"fine\.layer is 5; test_efficientnet has the stages 0 to 4, with strides \[.*\]"),
        (-1, r"fine\.layer"),
        ("last", r"fine\.layer"),
    ],
)
def test_a_layer_that_a_backbone_has_not_is_refused_before_anything_runs(
    layer: int | str, message: str, photos: Path, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(WeaksegError, match=message):
        start(
            photos,
            tmp_path,
            tiny_recipe(fine={"kind": "gradcam", "of": "classify", "layer": layer, "scales": [1]}),
        )
    assert not (tmp_path / "classify").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", r"fine\.layer is 1, of which test_vit .*the layer gives no maps"),
        ("swin_tiny_patch4_window7_224", r"fine\.layer is 1, of which swin.* are not square"),
    ],
)
def test_a_stage_of_tokens_is_refused_before_anything_runs(
    name: str, message: str, photos: Path, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(WeaksegError, match=message):
        start(
            photos,
            tmp_path,
            tiny_recipe(
                classify={"backbone": {"name": name, "weights": "none"}},
                localize={"feature_stages": []},
                **dict.fromkeys(("svm", "svm+crf")),
                fine={"kind": "gradcam", "of": "classify", "layer": 1, "scales": [1]},
            ),
        )


def test_a_stage_without_gradients_is_refused_before_anything_runs(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weakseg.networks.backbones import Backbone

    monkeypatch.setattr(Backbone, "stage_module", lambda self, index: self.model.global_pool)
    with pytest.raises(WeaksegError, match=r"fine\.layer is 1, of which .* called 0 times"):
        start(
            photos,
            tmp_path,
            tiny_recipe(fine={"kind": "gradcam", "of": "classify", "layer": 1, "scales": [1]}),
        )
