# Everything a newcomer needs, from python3 (3.11 or later) and make alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     two solves and a kernel machine, in under five minutes (OPTIONS=--quick: one)"
	@echo "make test     lint, types and tests: what continuous integration runs"
	@echo "make lint     lint and types alone"
	@echo "make format   put the code in shape"
	@echo "make clean    remove the virtual environment and every cache"

demo: $(VENV)/.demo
	$(BIN)/leyden demo $(OPTIONS)

test: lint $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix src tests
	$(BIN)/ruff format src tests

# A stamp a set of extras: installed once, and again when what is to be installed has changed.
$(VENV)/.demo: EXTRAS := demo
$(VENV)/.test: EXTRAS := test,lint
$(VENV)/.demo $(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Leyden needs Python 3.11 or later: try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
