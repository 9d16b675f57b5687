# make demo   train, evaluate and ask for recommendations on MovieLens-100K (or the bundled sample)
# make test   linters, types and the whole test suite
# make audit  known vulnerabilities of what is installed (asks a service on the network)
# Both make .venv and install what they need; nothing else is required but Python >= 3.11.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test lint audit clean

help:
	@sed -n 's/^# //p' Makefile | head -4

$(VENV)/.runtime: requirements.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON="'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-tracing.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

install: $(VENV)/.runtime

demo: $(VENV)/.runtime
	$(BIN)/python -m recsys.demo

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# On a machine that does nothing else: make test OMP_NUM_THREADS=1 PYTEST_OPTIONS="-n 2 --dist loadfile"
test: lint
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

audit: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(BIN)/pip-audit -r requirements.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
