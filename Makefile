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

# For users: .venv/bin/tag2mask lists the jobs.
install: .venv/installed

# For developers: also what the tests need.
develop: .venv/developed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; give another: make PYTHON=python3.12" >&2; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null \
	  || { echo "error: a C++ compiler is needed (Debian: apt-get install g++)" >&2; exit 2; }
	$(PYTHON) -m venv .venv

# Installed again when the requirements change.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP_INSTALL) --editable '.[export]'
	touch $@

.venv/developed: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP_INSTALL) --editable '.[test]'
	touch $@ .venv/installed

# On synthetic scenes, or on real images with DATA=manifest.csv [TRUTH=folder]. OUT= sets the output folder.
demo: install
ifeq ($(DATA),)
	$(BIN)/tag2mask demo --out $(OUT) --num-images $(NUM_SCENES) --preset $(PRESET)
else
	$(BIN)/tag2mask run --data "$(DATA)" $(if $(TRUTH),--truth "$(TRUTH)") --out $(OUT) --preset $(PRESET) --overwrite
endif

test: lint types imports unit

# Writes ratios to baselines measured in the same run to runs/bench. DATA=manifest.csv adds benchmarks that need
# photographs; RUN=folder (the output of jobs.run) also adds those that need trained networks.
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

# Without Ray and training, for the inner loop.
test-fast: develop
	$(BIN)/python -m pytest -m '$(FAST)' $(PYTEST_ARGS)

test-slow: develop
	$(BIN)/python -m pytest -m 'not ($(FAST))' $(PYTEST_ARGS)

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/docs/index.html. Warnings, such as of a broken link, are errors.
docs: install
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

# Known vulnerabilities of the pinned versions; skipped with a notice where their list cannot be reached.
audit:
	$(PYTHON) .ci/audit.py

# The fast tests with the oldest versions that pyproject.toml allows, in .venv-oldest.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[test]'
	.venv-oldest/bin/python -m pytest -m '$(FAST)' $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-oldest .venv-audit build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
