import subprocess
import sys

REFINED = """
import sys

import numpy as np

import weakseg.recipe, weakseg.refine.affinity, weakseg.refine.random_walk, weakseg.engine.opened
from weakseg.refine.crf import CRFSettings, dense_crf, unary_from_probabilities
from weakseg.refine.svm import SVMSettings, refine_with_svm, zscore

rng = np.random.default_rng(0)
left = np.zeros((12, 16), np.float32)
left[:, :8] = 1
photo = np.repeat((left * 200).astype(np.uint8)[..., None], 3, axis=2)
features = zscore(np.stack([left, 1 - left]) + rng.normal(0, 0.1, (2, 12, 16)))
found = refine_with_svm(features, left[None], SVMSettings(), rng)
assert (found.labels == left).all()
probabilities = np.stack([1 - left, left]) * 0.4 + 0.3
kernels = CRFSettings(3, 3, 30, 5, 5, iterations=2)
refined = dense_crf(photo, unary_from_probabilities(probabilities), kernels)
assert (refined.argmax(axis=0) == left).all()
assert "torch" not in sys.modules
"""


def test_recipes_the_svm_and_the_crf_need_no_pytorch() -> None:
    ran = subprocess.run([sys.executable, "-c", REFINED], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
