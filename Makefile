PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick lint docs bench voc clean

demo: data/demo
	$(BIN)/weakseg run demo --data data/demo --out runs/demo

data/demo: | $(VENV)/installed
	rm -rf $@.partial
	$(BIN)/weakseg data synth $@.partial --images 160 --seed 0
	mv $@.partial $@

test: lint
	$(BIN)/python -m pytest -n auto

quick: lint
	$(BIN)/python -m pytest -n auto -m "not slow"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs
	rm -rf build/docs
	$(BIN)/python scripts/docs.py build/docs

bench: voc $(VENV)/bench
	$(BIN)/python benchmarks/crf.py --data "$(DATA)"
	$(BIN)/weakseg run refined_pixel_labeling_cpu --data "$(DATA)" --out runs/bench
	$(BIN)/python benchmarks/svm.py --data "$(DATA)" --run runs/bench
	$(BIN)/python benchmarks/cam.py --data "$(DATA)" --run runs/bench
	$(BIN)/python benchmarks/pipeline.py --data "$(DATA)" --run runs/bench
	$(BIN)/python benchmarks/random_walk.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/curves.py --out docs/curves.png

voc:
	@test -d "$(DATA)/JPEGImages" || { echo "make bench needs photos: make bench DATA=path/to/VOC2012" >&2; exit 2; }

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[docs]"
	@touch $@

$(VENV)/bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	@touch $@

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "weakseg needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) data/demo data/demo.partial runs/demo build/docs
