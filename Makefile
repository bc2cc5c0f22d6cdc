# `make run` does the main job, `make test` proves that it works. Nothing outside this folder
# is touched; `make clean` takes everything away again.

PYTHON ?= python3
PORT   ?= 8000
DEVICE ?= cpu
MODELS ?= models
# Processes that the tests run in: as many as there are cores, but each of them holds a torch.
JOBS ?= logical
# Random examples of each property that `make nightly` tries.
EXAMPLES ?= 2000

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml constraints.txt requirements/torch.txt

.DEFAULT_GOAL := help
.PHONY: help run test quick nightly lowest lint typecheck unit train bench clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
	@echo "variables: PORT=$(PORT) DEVICE=$(DEVICE) MODELS=$(MODELS) PYTHON=$(PYTHON) JOBS=$(JOBS)"

run: $(VENV)/.converter $(if $(filter cuda,$(DEVICE)),$(VENV)/.gpu) ## fold the model that ships, publish it, serve it
	@$(BIN)/foldserve fold models/mnist/checkpoint.pt --publish $(MODELS)/mnist --if-changed
	@echo
	@echo "From another terminal: curl --json @models/mnist/example.json http://127.0.0.1:$(PORT)/predict"
	@echo
	@exec $(BIN)/foldserve serve --models $(MODELS) --port $(PORT) --device $(DEVICE)

test: lint typecheck unit ## everything that the continuous integration checks

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.test
	$(BIN)/mypy

# A file's tests run in one process, for what they share; tests/conftest.py puts long files first.
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses=$(JOBS) \
	--maxprocesses=4 --dist=loadfile --no-loadscope-reorder

unit: $(VENV)/.test $(VENV)/.tools
	$(PYTEST)

quick: $(VENV)/.test $(VENV)/.tools ## the tests that are not slow, for while you work
	$(PYTEST) -m "not slow"

nightly: $(VENV)/.test $(VENV)/.tools ## all tests, and many more random examples of each property
	HYPOTHESIS_PROFILE=search EXAMPLES=$(EXAMPLES) $(PYTEST)

lowest: $(VENV)/.test ## the tests with the oldest versions that pyproject.toml allows
	$(BIN)/python tests/lowest.py service
	$(BIN)/python tests/lowest.py converter

train: $(VENV)/.converter ## train the model that ships, on MNIST
	$(BIN)/python -m converter train --output models/mnist/checkpoint.pt

bench: $(VENV)/.test ## measure what the README quotes
	$(BIN)/python -m benchmarks.fold
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.latency

clean: ## remove what make has installed
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# --- installing; a stamp file for each set of packages -----------------------------------

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "On Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 2; }
	@touch $@

$(VENV)/.converter: $(VENV)/.python $(SOURCES)
	@echo "Installing torch (the CPU build, a few hundred MB) ..."
	@$(PIP) install --no-deps --retries 2 -r requirements/torch.txt
	@echo "Installing the converter and the service ..."
	@$(PIP) install -c constraints.txt -e '.[converter]'
	@touch $@

$(VENV)/.test: $(VENV)/.converter
	@echo "Installing what the tests need ..."
	@$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

# promtool and kustomize check what is in deploy/; tests that need one are skipped without it.
$(VENV)/.tools: $(VENV)/.python tests/tools.sh
	@sh tests/tools.sh $(BIN)
	@touch $@

# Both wheels install the module `onnxruntime`, so one must go before the other comes.
$(VENV)/.gpu: $(VENV)/.converter
	@echo "Replacing onnxruntime by its CUDA build ..."
	@$(PIP) install -c constraints.txt -e '.[gpu]'
	@$(PIP) uninstall --yes onnxruntime
	@$(PIP) install -c constraints.txt --force-reinstall --no-deps onnxruntime-gpu
	@touch $@
