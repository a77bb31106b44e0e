# `make train` and `make test` need only Python >= 3.11, git and make: they set up .venv first.
SHELL := /bin/bash
VENV  ?= .venv
ARGS  ?=
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
BIN   := $(VENV)/bin

# First interpreter that is recent enough and can create environments (Debian splits that off);
# override with `make PYTHON=/path/to/python ...`.
PYTHON_OK := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
PYTHON    ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	$$p $(PYTHON_OK) >/dev/null 2>&1 && { echo $$p; break; }; done)

# `make train seed=3` would set a variable of make's own and train with the default seed.
STRAY := $(foreach v,$(filter-out VENV ARGS PYTHON SHELL,$(.VARIABLES)),$(if \
	$(filter command,$(firstword $(origin $v))),$v=$($v)))
ifneq ($(strip $(STRAY)),)
  $(error settings go into ARGS: make $(or $(firstword $(MAKECMDGOALS)),train) ARGS="$(strip $(STRAY) $(ARGS))")
endif

# An environment that another checkout installed itself into is left alone: `pip install -e` would
# make everybody who uses it import this checkout instead.
define OURS
found="$$(cat $(VENV)/lib/python3*/site-packages/_egnn_prune.pth 2>/dev/null)"; \
if [ -d "$$found" ] && ! [ "$$found" -ef . ]; then \
  echo "$(VENV) is the environment of the checkout $$found: take another one, such as VENV=.venv" >&2; exit 1; fi
endef

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow compare figures docs tutorials lint format clean

help:  ## show this list
	@echo 'Usage: make TARGET [ARGS="hydra.override=value ..."] [PYTHON=python3.12] [VENV=.venv]'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP)  ## create .venv and install everything (done by the other targets when needed)

$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) $(PYTHON_OK) 2>/dev/null || { \
	  echo 'egnn_prune needs Python 3.11 or newer with its venv module: install it or pass PYTHON=/path/to/python.' >&2; exit 1; }
	@$(OURS)
	@echo '>> Setting up $(VENV): several minutes; with CUDA builds of PyTorch (Linux) about 3 GB to download, 6 GB on disk.'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check \
	  -c constraints.txt -e '.[vision,test,dev]'
	@touch $@
	@echo '>> $(VENV) is ready; `source $(VENV)/bin/activate` lets you type egnn-prune and python.'

train: $(STAMP)  ## train, prune, fine-tune and compact; e.g. ARGS="pruning.sparsity=0.75"
	$(BIN)/python scripts/train_pruned_egnn.py $(ARGS)

compare: $(STAMP)  ## compare the pruned model with the dense baseline
	$(BIN)/python scripts/compare_baseline.py $(ARGS)

test: $(STAMP)  ## run the fast tests
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(STAMP)  ## run the slow tests, which train models
	$(BIN)/python -m pytest -m slow $(ARGS)

figures: $(STAMP)  ## remake the figures of the README (about 25 minutes)
	$(BIN)/python scripts/train_pruned_egnn.py out=runs/readme
	$(BIN)/python scripts/compare_baseline.py out=runs/comparison workers=2 threads=1 \
	  training.max_epochs=10 training.finetune_epochs=6 sparsities=[0.4,0.54]
	cp runs/readme/pruned_vs_baseline.png runs/comparison/comparison.png figures/

docs: $(DOCS_STAMP)  ## build the documentation into site/ (python -m http.server -d site)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

tutorials: $(DOCS_STAMP)  ## run the tutorials and store what they print (a few minutes)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/tutorials/*.ipynb

$(DOCS_STAMP): $(STAMP)
	@$(OURS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and build results (runs/ is kept)
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
