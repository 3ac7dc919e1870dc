# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
VERSION = $(shell containers/version)

.PHONY: demo test test-all browser-test coverage test-lowest test-newest bench lint docs generate check-generated changelog dist \
    image push-image locked container-test gpu-test gpu-bench gpu-wheels clean

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/bids-tractography phantom $(DEMO)/dataset
	$(BIN)/bids-tractography $(DEMO)/dataset $(DEMO)/output participant -d $(DEMO)/dataset/derivatives/tissue
	$(BIN)/bids-tractography $(DEMO)/dataset $(DEMO)/output group
	@echo
	@echo "Tractograms, maps and sidecars: $(CURDIR)/$(DEMO)/output"
	@find $(DEMO)/output -name '*_tractogram.trx'
	@echo "Reports, for a browser:"
	@find $(CURDIR)/$(DEMO)/output -maxdepth 1 -name '*.html'

PYTEST := $(BIN)/pytest -n auto --dist loadfile --durations=20

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

# With the tests that take more than five seconds each.
test-all: $(VENV)/.installed-dev
	$(PYTEST)

# The tests of the report in Chromium, which Debian has as the package of that name.
browser-test: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,browser]'
	$(BIN)/pytest tests/end_to_end/test_report_browser.py tests/end_to_end/test_study_page.py

# Share of lines and branches that all tests reach; compiled kernels cannot be traced.
coverage: $(VENV)/.installed-dev
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

# The core with the oldest versions of the dependencies that pyproject.toml accepts.
LOWEST_TESTS ?= $(foreach name,compiled config cpu_engine csd_kernel formats gradients images inputs \
    tensor_kernel,$(shell find tests -name 'test_$(name).py'))

test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/pytest -n auto --dist loadfile $(LOWEST_TESTS)

# All tests with the newest versions, pre-releases included, regardless of our upper bounds.
test-newest: $(VENV)-newest/.installed
	$(VENV)-newest/bin/pytest -n auto --dist loadfile

# Our kernels beside how fast they were at the last call.
bench: $(VENV)/.installed-dev
	$(BIN)/pytest benchmarks/kernels.py --benchmark-autosave \
	    $(if $(wildcard .benchmarks),--benchmark-compare)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in site/, with warnings as errors; it neither uses nor links to anything to be loaded.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Files that are made from the program: JSON Schema, Boutiques, pages of command and configuration.
generate: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

check-generated: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py --check

# Move the fragments of changes/ into CHANGELOG.md, before a release.
changelog: $(VENV)/.installed-dev
	$(BIN)/towncrier build --yes --version $(VERSION)

# The source distribution and the wheel, in dist/.
dist: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet build
	rm -rf dist
	$(BIN)/python -m build --quiet

# One image: TARGET is cpu or cuda, IMAGE its name, with a registry if it is to be pushed.
DOCKER ?= docker
IMAGE ?= bids-tractography
TARGET ?= cpu
TAG = $(IMAGE):$(VERSION)$(patsubst -cpu,,-$(TARGET))

image:
	$(DOCKER) build --target $(TARGET) --tag $(TAG) --build-arg IMAGE=$(IMAGE) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	    --build-arg CREATED=$$(git show --no-patch --format=%cI HEAD) .

push-image:
	$(DOCKER) push $(TAG)

# Give the environment the versions of the images, so that container-test can compare results.
locked: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(VENV)/.installed

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

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

# uv can resolve to the lowest versions, pip cannot.
$(VENV)-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct \
	    --editable .
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest hypothesis pytest pytest-xdist
	touch $@

$(VENV)-newest/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --editable '.[dev]'
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade --pre \
	    dipy nibabel numba pybids pydantic scipy trx-python
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(DEMO) dist site
