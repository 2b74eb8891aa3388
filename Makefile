PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= runs/demo
DATA ?=
TRUTH ?=
PRESET ?= $(if $(DATA),small,tiny)
NUM_SCENES ?= 150
PYTEST_ARGS ?=
FAST := not slow and not s3
RUN ?=

.PHONY: install develop demo test test-fast test-slow unit bench lint types imports format audit test-oldest clean

# What a user needs; .venv/bin/tag2mask lists the jobs.
install: .venv/installed

# What the tests need too.
develop: .venv/developed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; give another: make PYTHON=python3.12" >&2; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null \
	  || { echo "error: a C++ compiler is needed (Debian: apt-get install g++)" >&2; exit 2; }
	$(PYTHON) -m venv .venv

# Installed once, and again when what is to be installed changes.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP_INSTALL) --editable '.[export]'
	touch $@

.venv/developed: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP_INSTALL) --editable '.[test]'
	touch $@ .venv/installed

# DATA=manifest.csv [TRUTH=folder] runs it on real images, else on synthetic scenes; OUT= chooses the folder.
demo: install
ifeq ($(DATA),)
	$(BIN)/tag2mask demo --out $(OUT) --num-images $(NUM_SCENES) --preset $(PRESET)
else
	$(BIN)/tag2mask run --data "$(DATA)" $(if $(TRUTH),--truth "$(TRUTH)") --out $(OUT) --preset $(PRESET) --overwrite
endif

test: lint types imports unit

# Ratios against baselines of the same run, into runs/bench. DATA=manifest.csv adds those that need photographs, and
# RUN=folder of a jobs.run with it those that need trained networks.
bench: install
	mkdir -p runs/bench
	$(BIN)/python -m benchmarks walk --json runs/bench/walk.json
ifneq ($(DATA),)
	$(BIN)/python -m benchmarks crf --data "$(DATA)" --json runs/bench/crf.json
ifneq ($(RUN),)
	$(BIN)/python -m benchmarks authors --data "$(DATA)" --cam $(RUN)/cam --affinity $(RUN)/affinity --json runs/bench/authors.json
	$(BIN)/python -m benchmarks pipeline --data "$(DATA)" --cam $(RUN)/cam --affinity $(RUN)/affinity --json runs/bench/pipeline.json
endif
endif

lint: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: develop
	$(BIN)/mypy

imports: develop
	$(BIN)/lint-imports

unit: develop
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The inner loop: without Ray, without training.
test-fast: develop
	$(BIN)/python -m pytest -m '$(FAST)' $(PYTEST_ARGS)

test-slow: develop
	$(BIN)/python -m pytest -m 'not ($(FAST))' $(PYTEST_ARGS)

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into build/docs/index.html; a warning, as of a link that leads nowhere, is an error.
docs: install
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

# Known weaknesses of the pinned versions; left out, with a line, where the list of them cannot be reached.
audit:
	$(PYTHON) .ci/audit.py

# The fast tests with the oldest versions that pyproject.toml allows, in a virtual environment of their own.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[test]'
	.venv-oldest/bin/python -m pytest -m '$(FAST)' $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-oldest .venv-audit build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
