# Each target does all of its own set-up from a clean clone; the second time the set-up costs nothing.
# PYTHON picks the interpreter (3.11 or newer), WORKERS the number of test processes.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# --no-build-isolation: the build tool is pinned like everything else, and not fetched anew for each install.
INSTALL := $(BIN)/python -m pip install --quiet --no-input -c constraints.txt
SPEC := pyproject.toml constraints.txt setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test nightly lint types bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo     three workers train real models, one is killed, the comparison is printed'
	@echo 'make test     the quick tests'
	@echo 'make nightly  the tests that take minutes'
	@echo 'make lint     ruff'
	@echo 'make types    mypy'
	@echo 'make bench    timings beside the floors of this machine'
	@echo 'make clean    remove the environment and all caches; never a store'

demo: $(VENV)/base.stamp
	$(BIN)/python jobs/demo.py

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

nightly: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(WORKERS) -m nightly $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

bench: $(VENV)/bench.stamp
	set -e; for each in benchmarks/*.py; do $(BIN)/python "$$each"; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/venv.stamp:
	@command -v $(PYTHON) >/dev/null || { \
	    echo 'make: $(PYTHON) is not there; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is `$(PYTHON) -V 2>&1`, but 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo 'make: $(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@echo 'installing the pinned packages into $(VENV); this takes some minutes, and only the first time'
	$(INSTALL) setuptools
	@touch $@

$(VENV)/base.stamp: $(VENV)/venv.stamp $(SPEC)
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/venv.stamp $(SPEC)
	$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $(VENV)/base.stamp $@

$(VENV)/bench.stamp: $(VENV)/venv.stamp $(SPEC)
	$(INSTALL) --no-build-isolation -e '.[bench]'
	@touch $(VENV)/base.stamp $@
