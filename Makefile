# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test bench lint generate check-generated container-test gpu-test gpu-bench gpu-wheels clean

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/bids-tractography phantom $(DEMO)/dataset
	$(BIN)/bids-tractography $(DEMO)/dataset $(DEMO)/output participant -d $(DEMO)/dataset/derivatives/tissue
	$(BIN)/bids-tractography $(DEMO)/dataset $(DEMO)/output group
	@echo
	@echo "Tractograms, maps and sidecars: $(CURDIR)/$(DEMO)/output"
	@find $(DEMO)/output -name '*_tractogram.trx'

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n auto --dist loadfile

# Our kernels beside how fast they were at the last call.
bench: $(VENV)/.installed-dev
	$(BIN)/pytest benchmarks/kernels.py --benchmark-autosave \
	    $(if $(wildcard .benchmarks),--benchmark-compare)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Files that are made from the program: JSON Schema, Boutiques, pages of command and configuration.
generate: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

check-generated: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py --check

# Build the images and run them the ways users do; as root on Debian it installs what it needs.
container-test: $(VENV)/.installed
	containers/check

# On a machine with an NVIDIA GPU; CUDA is cu12 or cu13, GPU_FOD and GPU_MAP are maps of a run.
CUDA ?= cu12
GPU_SEEDS ?= 1000000

gpu-test: $(VENV)/.installed-$(CUDA)
	$(BIN)/pytest tests/unit/tracking/test_cuda_engine.py

gpu-bench: $(VENV)/.installed-$(CUDA)
	$(BIN)/python benchmarks/cuda.py $(GPU_FOD) $(GPU_MAP) --seeds $(GPU_SEEDS)

# Everything that gpu-test and gpu-bench install, for a machine that reaches no package index.
gpu-wheels: | $(VENV)/bin/python
	$(BIN)/python -m pip wheel --quiet --wheel-dir wheels '.[dev,$(CUDA)]' 'hatchling>=1.24' editables
	rm -f wheels/bids_tractography-*.whl
	@echo "Copy the folder wheels; there: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make gpu-test"

$(VENV)/.installed-$(CUDA): $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,$(CUDA)]'
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(DEMO)
