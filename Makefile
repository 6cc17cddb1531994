# Every target sets up .venv by itself; it is made again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help setup sweep test ui lint bench soak containers screenshots clean

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) -V) is too old; Python 3.11 or newer is needed (make PYTHON=...)" >&2; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## prepare .venv

sweep: $(STAMP)  ## the LoRA study on the embedded demo: minutes
	@$(BIN)/mtl study run lora_sweep
	@command -v mtl >/dev/null || printf '\nmtl is $(BIN)/mtl here: . $(VENV)/bin/activate puts it on the path of this shell.\n'

test: $(STAMP)  ## every test, offline
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

ui: $(STAMP)  ## MLflow and the Optuna dashboard over what was recorded
	@$(BIN)/mtl ui

lint: $(STAMP)  ## ruff, and mypy over both packages
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(STAMP)  ## ours beside transformers and peft, and the bookkeeping: on the demo, minutes
	@$(BIN)/python benchmarks/steps.py
	@$(BIN)/python benchmarks/overhead.py

soak: $(STAMP)  ## twenty minutes of kills, stops and moves, then a check that nothing is lost
	@$(BIN)/python tests/soak.py --minutes 20

containers: $(STAMP)  ## docker-compose.yml run for real, with docker or podman: docs/docker.md
	@$(BIN)/python tests/containers.py

screenshots: $(STAMP)  ## the pictures in docs/images, of a demo study (minutes; needs chromium)
	@$(BIN)/python tests/screenshots.py docs/images

clean:  ## remove .venv and caches; recorded studies (.mtl) stay
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
