# kapsel: `make demo` and `make test` set everything up themselves, in .venv, from the pinned constraints.txt.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check chaos chaos-bugs soak cluster e2e e2e-kind bench verifier web-verifier screenshots fmt crds chart docs lock clean

help: ## say what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1 \2/p' $(MAKEFILE_LIST) | awk '{printf "  make %-8s ", $$2; $$1=$$2=""; print}'

setup: $(INSTALLED) ## install everything into .venv

demo: $(INSTALLED) ## run the main job on real input; KEEP=1 leaves it running
	@$(BIN)/python -m kapsel_cli.demo $(if $(filter-out 0,$(KEEP)),--keep) $(ARGS)

# Four at a time, however few cores there are: most tests wait for something, and two of them leave two thirds of two cores
# idle. In the order of the folders: the files of a few long tests come first, and those of many short ones even out the end.
test: $(INSTALLED) ## run the tests; ARGS="-k name" and the like go to pytest
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## lint, formatting, types, and which package may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

cluster: ## a one-node cluster on this machine with kapsel and examples/quickstart (Linux, root, Go); KUBECONFIG is told
	@tests/cluster/cluster status >/dev/null 2>&1 || tests/cluster/cluster up
	@tests/cluster/cluster kapsel

e2e: $(INSTALLED) ## the tests of pods, on a one-node cluster of their own (Linux, root, Go)
	@KAPSEL_TEST_NODE=1 $(BIN)/python -m pytest tests/cluster/node $(ARGS)

e2e-kind: $(INSTALLED) ## those of them that need no access to the node, on kind (docker, kind, kubectl, helm)
	@tests/cluster/kind $(BIN)/python $(ARGS)

bench: $(INSTALLED) ## measure ingest, delivery, sequencing and proofs, each beside its own limit
	@$(COMPILE)
	@$(BIN)/python bench/run.py $(ARGS)

CHAOS := cd tests/chaos && $(abspath $(BIN))/python -m simulation

chaos: $(INSTALLED) ## let faults loose that a seed decides: SEEDS=200 of them, or SEED=n alone; docs/chaos.md
	@$(CHAOS) $(if $(SEED),--seed $(SEED) --verbose,--seeds $(or $(SEEDS),200)) $(ARGS)

chaos-bugs: $(INSTALLED) ## plant bugs, each in a seed that finds it, and see that it is named
	@$(CHAOS) --bugs $(ARGS)

soak: $(INSTALLED) ## run kapsel for MINUTES=30 under traffic and faults, and write the report soak.html
	@$(BIN)/python bench/soak.py --minutes $(or $(MINUTES),30) $(ARGS)

verifier: $(INSTALLED) ## write dist/kapsel-verify.pyz, the proof verifier as one file that any Python runs
	@$(BIN)/python -m kapsel_verifier.single_file dist/kapsel-verify.pyz LICENSE

web-verifier: $(INSTALLED) ## write dist/kapsel-verify.html, the proof verifier as one page that any browser opens
	@$(BIN)/python verifier/web/bundle.py dist/kapsel-verify.html

screenshots: web-verifier ## make the pictures of the web verifier in docs/images anew (Chromium)
	@PYTHONPATH=tests/shared $(BIN)/python -m browser.verifier_pictures dist/kapsel-verify.html docs/images

fmt: $(INSTALLED) ## format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

crds: $(INSTALLED) ## write crds/ and the configuration reference from the models
	@$(BIN)/python -m kapsel_resources.crd crds
	@$(BIN)/python -m kapsel_resources.reference > docs/configuration.md

chart: crds ## write what the chart has from elsewhere: definitions, rights, README.md, deploy/kapsel.yaml
	@$(BIN)/python charts/chart.py

docs: $(INSTALLED) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# uv resolves for every platform and Python at once, which pip cannot. No header, no index addresses: the lock names
# versions and hashes alone. The image installs the same versions, and only what it runs.
lock: $(BIN)/python ## pin the newest versions that pyproject.toml allows
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT \
	&& $(BIN)/python -m venv "$$tools" && "$$tools/bin/pip" install --quiet --disable-pip-version-check uv \
	&& compile() { "$$tools/bin/uv" pip compile --quiet --python-version 3.11 --generate-hashes --no-header "$$@"; } \
	&& compile --upgrade --universal --all-extras --group dev pyproject.toml -o constraints.txt \
	&& image() { compile --python-platform linux --no-annotate -c constraints.txt "$$@"; } \
	&& image --extra all pyproject.toml -o deploy/requirements.txt \
	&& image --group pyproject.toml:build -o deploy/requirements-build.txt

clean: ## remove the environment and what tools leave behind
	@rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The packages come with hashes; kapsel itself is then linked in place with the build tools that were just installed.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the pinned dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(COMPILE)
	@touch $@

# An installed package has its bytecode. What is linked in place gets it when it is first imported, or at every start anew
# where PYTHONDONTWRITEBYTECODE is set.
COMPILE = $(BIN)/python -m compileall -q operator receiver deliverer attestor verifier console witness cli lib

# A distribution builds its Python with profile-guided optimisation, pyenv does not unless it is told to: kapsel is a third
# quicker in the former. PYTHON=... decides otherwise.
PYTHON := /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11

$(BIN)/python:
	@for candidate in $(PYTHON); do \
	    $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    bare=$$candidate; \
	    if $$candidate -c 'import ensurepip, venv' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$bare" ]; then \
	    echo "kapsel needs Python 3.11 or newer, and none is on the PATH. Install one: https://www.python.org/downloads/" >&2; exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
	    echo "$$bare cannot make virtual environments. Install what Debian keeps apart: sudo apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "making a virtual environment in $(VENV) with $$($$python --version) ($$python) ..."; \
	$$python -m venv --clear $(VENV)
