from pathlib import Path

import pytest
import torch

from tiny import Start, masks, tiny_recipe
from weakseg.methods.networks import compute_type, usable_precision

CPU = torch.device("cpu")


def test_a_gpu_and_float32_are_left_alone() -> None:
    assert compute_type("bf16-mixed", torch.device("cuda")) is torch.bfloat16
    assert compute_type("16-mixed", torch.device("cuda")) is torch.float16
    assert compute_type("32-true", CPU) is None


@pytest.mark.parametrize("there", [True, False])
def test_a_cpu_computes_in_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there, raising=False)
    assert usable_precision("bf16-mixed", CPU) == ("bf16-mixed" if there else "32-true")
    assert compute_type("bf16-mixed", CPU) is (torch.bfloat16 if there else None)


def test_a_run_without_the_instructions_is_one_in_float32(
    photos: Path, start: Start, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    recipe = tiny_recipe(classify={"precision": "bf16-mixed"}, localize={"precision": "bf16-mixed"})
    said = start(photos, tmp_path / "out", recipe).said
    assert sum("no instructions for bf16-mixed" in line for line in said) == 1
    assert masks(tmp_path / "out") == masks(finished)
