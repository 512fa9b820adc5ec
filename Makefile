PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

# What Python compiles once is kept: without it each of the many processes of a test compiles the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo format check test-fast test test-all docs docs-links bench audit browser azurite clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

install: $(READY)  ## make the environment .venv

demo: $(READY)  ## draw and serve a small shop, and run every step on it
	$(BIN)/atlas-ray demo

format: $(READY)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(READY)  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-fast: $(READY)  ## run the tests that take less than half a second each
	$(BIN)/pytest -q -n 2 --dist loadscope \
	  -m "not ray and not s3 and not browser and not cluster and not slow and not long"

# Two at a time: most of a test's time is spent on waiting for a Ray to start. A file's tests stay together, for they
# share what is slow to make: a trained model, an endpoint. The slow ones measure, and run alone. A process that dies
# ends the run: with another in its place the others would wait for the rest of its tests for ever.
test: check browser azurite  ## check, then run all tests but the slow ones
	$(BIN)/pytest -n 2 --max-worker-restart 0 --dist loadscope --no-loadscope-reorder

test-all: check browser azurite  ## check, then run all tests
	$(BIN)/pytest -m ""

# Tests of pages need Chromium. Root can bring it; without it pytest's last lines count what it skipped.
browser:
	@if [ -z "$$CHROMIUM_PATH" ] && ! command -v chromium chromium-browser google-chrome > /dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    echo "installing Chromium for the tests of pages"; \
	    { apt-get update && apt-get install --yes --no-install-recommends chromium; } > /dev/null 2>&1 \
	      || echo "Chromium could not be installed"; \
	  fi; \
	fi

# Tests of az:// need Azurite, which npm brings; without it pytest's last lines count what they skipped.
azurite:
	@if [ ! -x .venv/azurite/node_modules/.bin/azurite-blob ] && command -v npm > /dev/null; then \
	  echo "installing Azurite for the tests of az://"; \
	  mkdir -p .venv/azurite && cp -r tests/support/azurite/. .venv/azurite/ \
	    && npm install --prefix .venv/azurite --omit=dev --no-audit --no-fund --ignore-scripts --silent > /dev/null 2>&1 \
	    || echo "Azurite could not be installed"; \
	fi

# Warnings, a broken link to another page among them, are errors.
docs: $(READY)  ## build the documentation
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

docs-links: $(READY)  ## ask for every address outside the documentation
	$(BIN)/sphinx-build -W --keep-going -q -b linkcheck docs docs/_build/links

bench: $(READY)  ## list the benchmarks
	@cd benchmarks && grep -H -m 1 '^"""' [a-z]*.py | sed 's/\.py:"""/: /; s/"""$$//'

audit: $(READY)  ## look the dependencies up among known vulnerabilities
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

# Compiled by all cores, which pip does not; what cannot be compiled is for other versions of Python.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; name another with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib atlas_ray > /dev/null || true
	touch $(READY)

clean:  ## remove the environment and all that was built
	rm -rf .venv demo docs/_build .mypy_cache .pytest_cache .ruff_cache *.egg-info
