PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TOOLS := $(VENV)/tools
INPUTS ?= 10000
KILLS ?= 100
ON ?= folder
SEED ?= 0
DEVICE ?= cuda

.PHONY: demo test quick lint docs bench gpu voc fuzz kills lock sbom audit test-oldest test-newest test-all clean

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

gpu: voc $(VENV)/installed
	PYTHONPATH=tests $(BIN)/python benchmarks/devices.py --data "$(DATA)" --device $(DEVICE)

voc:
	@test -d "$(DATA)/JPEGImages" || { echo "Photos are needed: make $(MAKECMDGOALS) DATA=path/to/VOC2012" >&2; exit 2; }

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[docs]"
	@touch $@

$(VENV)/bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	@touch $@

fuzz: $(VENV)/installed
	PYTHONPATH=tests $(BIN)/python fuzz/fuzz.py --inputs $(INPUTS) --seed $(SEED)

kills: $(VENV)/installed
	PYTHONPATH=tests $(BIN)/python fuzz/kills.py --kills $(KILLS) --seed $(SEED) --on $(ON)

# What is pinned stays but for UPGRADE=--upgrade.
lock: $(TOOLS)/installed
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
		--no-annotate --no-header --quiet $(UPGRADE) -o requirements.lock
	@sed -i.before '1i # What `make demo` and `make test` install, by name, version and SHA-256: written by `make lock`.' \
		requirements.lock && rm requirements.lock.before

sbom: $(VENV)/installed $(TOOLS)/installed
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.json $(BIN)/python

# --strict: what can't be looked up, as without a network, fails instead of being passed over.
audit: $(TOOLS)/installed
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

test-oldest test-newest: test-%: $(TOOLS)/installed
	$(TOOLS)/bin/uv venv --quiet --clear --python $(PYTHON) .venv-$*
	$(TOOLS)/bin/uv pip install --quiet --python .venv-$*/bin/python --upgrade \
		--resolution $(if $(filter oldest,$*),lowest-direct,highest) --editable ".[dev]"
	.venv-$*/bin/python -m pytest -n auto

test-all:
	for version in 3.11 3.12 3.13; do \
		$(MAKE) VENV=.venv-$$version PYTHON=python$$version test || exit 1; \
	done

$(TOOLS)/installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet "uv>=0.13,<0.14" "pip-audit>=2.10,<3" "cyclonedx-bom>=7.5,<8"
	@touch $@

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "weakseg needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) .venv-* sbom.json data/fuzz data/demo data/demo.partial runs/demo build/docs
