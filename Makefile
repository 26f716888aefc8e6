# Every target stands on `setup`; the second time that takes well under a second.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps share one cache and two cores: their order is part of the recipe.
.NOTPARALLEL:

PYTHON := .venv/bin/python
CPP_SOURCES := $(shell find android_harness -type d -name build -prune -o -type f \( -name '*.cpp' -o -name '*.h' \) -print 2>/dev/null)

.PHONY: help setup demo test test-soak lint format bench bench-agent bench-compress bench-gate bench-history bench-pages chaos fuzz phone-image clean distclean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## OS packages where allowed, then .venv with the pinned versions
	@scripts/setup.sh

demo: setup ## EfficientNet-Lite0 from PyTorch to a verdict on the emulated phone
	$(PYTHON) -m scripts.phone_image --if-possible
	$(PYTHON) -m deploy.cli run examples/efficientnet_lite0.yaml

test: setup lint ## lint, then the tests that can run here, but for the long ones of test-soak
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not soak'

test-soak: setup ## the long ones: faults of phones, interrupted runs, whole paths; CI runs them too
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m soak

lint: setup ## ruff, mypy and clang-format, all in checking mode
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
ifneq ($(strip $(CPP_SOURCES)),)
	@echo 'clang-format: $(words $(CPP_SOURCES)) files'
	@.venv/bin/clang-format --dry-run --Werror $(CPP_SOURCES)
endif

format: setup ## rewrite the sources as lint wants them
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
ifneq ($(strip $(CPP_SOURCES)),)
	@.venv/bin/clang-format -i $(CPP_SOURCES)
endif

bench: setup ## push and pull MB/s over ADB: table here, JSON under build/
	$(PYTHON) -m benchmarks.adb_transfer

bench-agent: setup ## the agent beside Google's adb and bare runtimes, targets beside figures
	$(PYTHON) -m benchmarks.agent $(if $(PARTS),--parts $(PARTS))

bench-compress: setup ## recipes beside single libraries; MODEL=<row> SEEDS=<n> for one row
	$(PYTHON) -m benchmarks.compression $(if $(MODEL),--model $(MODEL)) $(if $(SEEDS),--seeds $(SEEDS))

bench-pages: setup ## size and opening time of the pages of 1,000 cases with 1,000 samples each
	$(PYTHON) -m benchmarks.pages

bench-gate: setup ## the gate and other rules on simulated devices; PHONE=1: on the emulated phone
	$(PYTHON) -m benchmarks.gate $(if $(PHONE),--phone)

bench-history: setup ## a history of 100,000 cases, targets beside figures; CASES=<n>
	$(PYTHON) -m benchmarks.change_points
	$(PYTHON) -m benchmarks.history $(if $(CASES),--cases $(CASES))

chaos: setup ## 4 emulated phones and 64 daemons under random faults; SEED=<n> for other ones
	$(PYTHON) -m benchmarks.chaos $(if $(SEED),--seed $(SEED))

fuzz: setup ## fuzz adbd, the runner and model files for SECONDS each (60); needs clang
	$(PYTHON) -m scripts.fuzz --seconds $(or $(SECONDS),60) $(if $(PARTS),--parts $(PARTS))

phone-image: setup ## build the emulated phone's kernel and RAM disk (once; needs QEMU)
	$(PYTHON) -m scripts.phone_image

clean: ## remove build outputs and reports; the environment and the cache stay
	rm -rf build dist reports .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## clean, and remove .venv too
	rm -rf .venv
