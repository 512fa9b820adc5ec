PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test test-all check docs docs-links clean

demo: $(READY)
	$(BIN)/atlas-ray demo

# Two at a time: most of a test's time is spent on waiting for a Ray to start. A file's tests stay together, for they
# share what is slow to make: a trained model, an endpoint. The slow ones measure, and run alone.
test: check
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder

test-all: check
	$(BIN)/pytest -m ""

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Warnings, a broken link to another page among them, are errors.
docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Asks for every address outside the documentation, too.
docs-links: $(READY)
	$(BIN)/sphinx-build -W --keep-going -q -b linkcheck docs docs/_build/links

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; name another with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv demo docs/_build .mypy_cache .pytest_cache .ruff_cache *.egg-info
