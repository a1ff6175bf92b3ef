# The one way to do each thing. `make help` lists the targets.
#
# What a plain machine lacks is fetched by the targets that need it. It is kept
# in the cache, shared by all checkouts (tools, compiled code, the model), or
# in ignored folders of the checkout (.venv, node_modules, dist). Every build
# is a release build into one target folder: llama.cpp is compiled once for
# Rust, Node, Python and the linter.
#
# May be set, on the command line or in the environment:
#   GPU=vulkan          build the packages with backends for GPUs (docs/gpu.md),
#                       and with one variant of the CPU backend, for AVX2
#   V=1                 show every command of the native build, with warnings
#   PYTHON              the Python to use; default python3
#   MULLAMA_CACHE       the cache; default ~/.cache/mullama
#   CARGO_TARGET_DIR    compiled code; default $MULLAMA_CACHE/target
#   MULLAMA_TEST_MODEL  another GGUF file for the demo, the tests and the bench
#   QUICK=1, MODEL, PROMPTS and more of the benchmarks: bench/README.md

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
MULLAMA_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mullama
CARGO_TARGET_DIR ?= $(MULLAMA_CACHE)/target
export PYTHON MULLAMA_CACHE CARGO_TARGET_DIR
ifeq ($(and $(filter /%,$(MULLAMA_CACHE)),$(filter /%,$(CARGO_TARGET_DIR))),)
$(error MULLAMA_CACHE and CARGO_TARGET_DIR must be absolute paths)
endif

GPU_FEATURES := $(if $(GPU),$(shell $(PYTHON) scripts/gpu_backends.py '$(GPU)'))
ifeq ($(if $(GPU),$(GPU_FEATURES),none),)
$(error GPU=$(GPU) can not be built)
endif
MATURIN_FEATURES := $(if $(GPU),--features $(GPU_FEATURES))

# What is installed elsewhere has every variant of the CPU backend (docs/cpu.md),
# compiled once for both packages. What stays in the checkout has one.
VARIANTS := dynamic-backends
ADDON := dist/addon

# Where maturin installs the package for development.
export VIRTUAL_ENV := $(CURDIR)/.venv

TOOLS := $(PYTHON) scripts/with_tools.py
CARGO := $(TOOLS) cargo
VENV_PYTHON := .venv/bin/python
VERBOSE := $(if $(filter 1,$(V)),-vv)
SAY := @printf '==> %s\n'
FIRST := (the first build compiles llama.cpp: some minutes)

# Runs a command of cargo for the core with no feature and with each of its own
# in turn. What llama.cpp is built with is left out: another llama.cpp each.
CARGO_HACK_VERSION := 0.6.46
CARGO_HACK := $(MULLAMA_CACHE)/tools/cargo-hack-$(CARGO_HACK_VERSION)/bin/cargo-hack
EACH_FEATURE = --release --package mullama --each-feature \
	--exclude-features default,cuda,metal,vulkan,rocm,opencl,mkl,dynamic-backends

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

## Set-up

.PHONY: check
check: ## say what this machine lacks, if anything
	@sh scripts/check_machine.sh

.PHONY: model
model: | check ## fetch the test model into the cache
	@$(PYTHON) scripts/fetch_model.py

.venv/complete: scripts/requirements-test.txt | check
	$(SAY) "making the Python environment in .venv"
	@rm -f $@
	@$(PYTHON) -m venv --clear .venv
	@$(VENV_PYTHON) -m pip install --disable-pip-version-check -r scripts/requirements-test.txt
	@touch $@

# Not `npm ci`: it refuses the lock file where a registry lacks an optional
# package for another platform. `--no-save` leaves the lock file as it is.
node_modules/complete: package.json package-lock.json | check
	$(SAY) "installing the Node tools into node_modules"
	@rm -f $@
	@npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(CARGO_HACK): | check
	$(SAY) "installing cargo-hack into the cache"
	@cargo install --quiet --locked --root $(MULLAMA_CACHE)/tools/cargo-hack-$(CARGO_HACK_VERSION) \
		cargo-hack --version $(CARGO_HACK_VERSION)

## Builds

# Writes tiny random models for the tests. Built without a named target, so
# that the tests find it under the same path everywhere; it needs no llama.cpp.
.PHONY: tiny-model
tiny-model: | check
	@$(TOOLS) env -u CARGO_BUILD_TARGET cargo build --release --package mullama-test-support $(VERBOSE)

.PHONY: python
python: .venv/complete ## build the Python package into .venv
	$(SAY) "building the Python package $(FIRST)"
	@$(TOOLS) maturin develop --release $(MATURIN_FEATURES) $(VERBOSE)

.PHONY: node
node: node_modules/complete ## build the Node package
	$(SAY) "building the Node package $(FIRST)"
	@$(TOOLS) npm run build $(if $(GPU),-- --gpu=$(GPU_FEATURES))

.PHONY: wheel
wheel: | check ## build the Python wheel into dist/
	$(SAY) "packing the wheel $(FIRST)"
	@rm -f dist/*.whl
	@$(TOOLS) maturin build --release --out dist $(or $(MATURIN_FEATURES),--features $(VARIANTS)) $(VERBOSE)

.PHONY: npm
npm: node_modules/complete ## build the npm tarballs into dist/
	$(SAY) "building the add-on for the npm tarballs $(FIRST)"
	@$(TOOLS) npm run build -- --out=$(ADDON) $(if $(GPU),--gpu=$(GPU_FEATURES),--all-variants)
	$(SAY) "packing the npm tarballs"
	@mkdir -p dist
	@rm -f dist/*.tgz
	@npm run pack:dist -- --from=$(ADDON)

## What users run

.PHONY: demo
demo: python node ## set everything up, then stream an answer in Python and in Node
	@model=$$($(PYTHON) scripts/fetch_model.py) && \
	printf '\n==> %s\n' "Python: examples/python/hello.py" && \
	$(VENV_PYTHON) examples/python/hello.py "$$model" && \
	printf '\n==> %s\n' "Node: examples/node/hello.mjs" && \
	node examples/node/hello.mjs "$$model"

.PHONY: test
test: ## run the linters and all tests
	@$(MAKE) lint
	@$(MAKE) test-rust
	@$(MAKE) test-node
	@$(MAKE) test-python
	@$(MAKE) test-packaging
	@$(MAKE) docs
	$(SAY) "all tests passed"

# With a model of the user's in MODEL the test model isn't needed.
BENCH = MULLAMA_TEST_MODEL=$(if $(MODEL),'$(MODEL)',$$($(PYTHON) scripts/fetch_model.py)) && \
	export MULLAMA_TEST_MODEL && $(TOOLS) $(VENV_PYTHON) -m

# What users install is measured, so Rust has the packages' variants as well.
.PHONY: bench
bench: .venv/complete wheel npm ## run the benchmarks; QUICK=1 for a short run (bench/README.md)
	@$(CARGO) build --release --package mullama-bench --bins $(if $(GPU),,--features $(VARIANTS)) $(VERBOSE)
	@$(BENCH) bench

.PHONY: bench-quick
bench-quick: ## the same with QUICK=1: a part of them in under 3 minutes
	@QUICK=1 $(MAKE) bench

.PHONY: bench-tools
bench-tools: .venv/complete wheel npm ## build and install what the benchmarks compare with
	@$(BENCH) bench.tools

.PHONY: bench-report
bench-report: .venv/complete ## write the report again from the last results
	@$(BENCH) bench render

## Parts of `make test`, one at a time: they would slow each other down.

# Runs a command with the model's path in MULLAMA_TEST_MODEL.
WITH_MODEL = MULLAMA_TEST_MODEL=$$($(PYTHON) scripts/fetch_model.py) && export MULLAMA_TEST_MODEL &&

.PHONY: test-rust
test-rust: $(CARGO_HACK) | check
	$(SAY) "Rust tests $(FIRST)"
	@$(WITH_MODEL) $(CARGO) test --release --workspace --exclude mullama $(VERBOSE)
	@$(TOOLS) $(CARGO_HACK) hack test $(EACH_FEATURE) $(VERBOSE)

.PHONY: test-node
test-node: node tiny-model
	$(SAY) "Node tests"
	@$(WITH_MODEL) $(TOOLS) npm test

.PHONY: test-python
test-python: python node_modules/complete tiny-model
	$(SAY) "Python tests"
	@$(WITH_MODEL) $(TOOLS) $(VENV_PYTHON) -m pytest tests/python

.PHONY: test-packaging
test-packaging: wheel npm
	$(SAY) "the core with the variants of the CPU backend"
	@$(CARGO) clippy --release --package mullama --all-targets --features $(VARIANTS) $(VERBOSE) -- -D warnings
	@MULLAMA_BACKENDS_DIR=$(CURDIR)/$(ADDON)/backends \
		$(CARGO) test --release --package mullama --lib --features $(VARIANTS) $(VERBOSE)
	$(SAY) "packaging tests"
	@$(WITH_MODEL) $(VENV_PYTHON) -m pytest tests/packaging

.PHONY: lint
lint: .venv/complete node_modules/complete $(CARGO_HACK) ## check format, lints, types and the house rules
	$(SAY) "format"
	@cargo fmt --all --check
	@$(VENV_PYTHON) -m ruff check
	$(SAY) "house rules"
	@$(VENV_PYTHON) scripts/check_repository.py
	$(SAY) "clippy $(FIRST)"
	@$(CARGO) clippy --release --workspace --all-targets $(VERBOSE) -- -D warnings
	@$(TOOLS) $(CARGO_HACK) hack clippy $(EACH_FEATURE) --all-targets $(VERBOSE) -- -D warnings
	@$(MAKE) node python
	$(SAY) "types of the Node package"
	@node --test --test-reporter=dot tests/node/types.test.mjs tests/node/drift.test.mjs
	$(SAY) "types of the Python package"
	@$(VENV_PYTHON) -m mypy scripts bench bindings/python/build_backend bindings/python/python
	@$(VENV_PYTHON) -m pytest -q tests/python/test_typing.py
	$(SAY) "parity of the languages"
	@$(VENV_PYTHON) scripts/parity.py

.venv/docs: scripts/requirements-docs.txt .venv/complete
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r scripts/requirements-docs.txt
	@touch $@

.PHONY: docs
docs: python node_modules/complete .venv/docs ## build the references into dist/docs; any warning fails
	$(SAY) "references of Rust, Node and Python"
	@$(TOOLS) $(VENV_PYTHON) scripts/build_docs.py

.PHONY: shell
shell: | check ## open a shell with the build tools, for cargo by hand
	@MULLAMA_TEST_MODEL=$$($(PYTHON) scripts/fetch_model.py) $(TOOLS) "$${SHELL:-/bin/sh}"

.PHONY: clean
clean: ## remove what was built in this checkout; the cache stays
	@rm -rf dist .venv node_modules target .pytest_cache .mypy_cache .ruff_cache
	@find bindings core tests examples scripts bench -name __pycache__ -type d -prune -exec rm -rf {} +
	@find bindings \( -name '*.node' -o -name '*.so' -o -name '*.dylib' -o -name native.d.ts \) -type f -exec rm -f {} +
	@printf '%s\n' "The cache of all checkouts is $(MULLAMA_CACHE); remove it by hand."
