# %% [markdown]
# # From photos to masks
#
# You have photos, and for each the list of things in it. At the end of this notebook each photo
# has a mask, which says of every pixel what it is.
#
# It is a Python file with cells: VS Code and PyCharm open it as a notebook, Jupyter does with
# jupytext, and `python photos_to_masks.py` runs it. Nothing is fetched, and a laptop is enough.

# %% [markdown]
# ## Photos and tags
#
# Here the photos are generated, so that the notebook runs anywhere. Yours are a folder with
# `images/` and a table, `tags.csv`: a row for each photo, with its name and what is in it.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

import weakseg
from weakseg.data.images import read_photo
from weakseg.data.synth import generate
from weakseg.drawing import overlay_heat, overlay_mask
from weakseg.grid import upsample

data = Path("photos")
if not data.exists():
    generate(data, images=40, seed=0)
print((data / "tags.csv").read_text()[:90])

# %%
Image.open(data / "JPEGImages" / "000005.jpg")

# %% [markdown]
# ## The run
#
# One call does everything. A classifier learns the tags; what it looks at when it says *cat* is
# where the cat is, roughly; and two more steps make a mask of that. Words such as `svm.cycles=3`
# change a number of the recipe, and `NAME=null` leaves a step out: here the network that learns
# the masks at the end, which takes minutes. `data.every=5` makes masks of every fifth photo
# alone.

# %%
changes = [
    "data.split=all",
    "data.held_out=null",
    "data.every=5",
    "svm.cycles=3",
    "report.panels=2",
]
changes += ["cam+crf=null", "segmenter=null", "segment=null", "segment+tta=null"]
run = weakseg.run("demo", data, "run", changes, workers=1)
print(run.classes)
print(run.masks, run.photos(run.masks))

# %% [markdown]
# ## What it made
#
# `run.mask` is an array: 0 where nothing is, and the numbers of the classes from 1. Over its
# photo:

# %%
photo = read_photo(run.files["000005"])
mask = run.mask("000005")
print({run.classes[i - 1]: f"{(mask == i).mean():.0%}" for i in np.unique(mask) if i})
Image.fromarray(overlay_mask(photo, mask))

# %% [markdown]
# ## How it came about
#
# The maps of a step tell where it sees each tag, from 0 (blue) to 1 (red). This is the
# classifier's own view of the first tag, on a coarse grid:

# %%
cam = run.maps("000005", "localize", "features")
print(cam.scores.shape, cam.scores.dtype)
Image.fromarray(overlay_heat(photo, upsample(cam.scores, *photo.shape[:2])[0]))

# %% [markdown]
# The steps are functions on arrays, too. The SVM takes what the map is sure of, and asks of every
# other pixel which of it looks more alike; the CRF then follows the edges of the photo.

# %%
features = weakseg.zscore(np.asarray(cam.features, np.float32))
settings = weakseg.SVMSettings(foreground_threshold=0.5, background_threshold=0.15)
grown = weakseg.refine_with_svm(features, cam.scores, settings, np.random.default_rng(0))

unary = weakseg.unary_from_scores(upsample(grown.scores, *photo.shape[:2]))
kernels = weakseg.CRFSettings(3, 3, 50, 5, 10)
labels = weakseg.dense_crf(photo, unary, kernels).argmax(axis=0)

tags = [i for i, name in enumerate(run.classes, start=1) if name in ("cat", "snail")]
ids = np.array([0, *tags], np.uint8)[labels]
Image.fromarray(overlay_mask(photo, ids))

# %% [markdown]
# ## How good it is
#
# Without true masks a run says of each class how well the classifier knows it, and how sure it is
# of each mask. Photos with a low number are those to look at first, by `weakseg review run` for
# example.

# %%
for name, sure in sorted(run.confidence.items(), key=lambda pair: pair[1]):
    print(name, f"{sure:.2f}")

# %% [markdown]
# The generated photos have true masks, so that here it can be measured as well: the mean over the
# classes of how much of mask and truth is common to both (mIoU).

# %%
for row in run.figures:
    print(f"{row['name']:<12} {row['miou']:.1%}")
