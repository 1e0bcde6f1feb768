# Everything needs Python 3.11 or newer and nothing else installed: `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test acceptance lint bench clean
.DELETE_ON_ERROR:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-test ## create .venv with everything that the tests need

demo: $(VENV)/.installed ## from ticks to fills on a real Kafka and TimescaleDB (ARGS="--json" and others)
	@$(BIN)/headrace demo $(ARGS)

test: $(VENV)/.installed-test ## the whole test suite but the long acceptance runs (ARGS="-k name")
	@$(BIN)/python -m tests $(ARGS)

acceptance: $(VENV)/.installed-test ## the long runs: real sessions in full, kills of every process, figures
	@$(BIN)/python -m pytest tests/acceptance --timeout 2400 $(ARGS)

lint: $(VENV)/.installed-test ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.installed-test ## the measurements that the README quotes (ARGS="throughput" and others)
	@$(BIN)/python -m bench $(or $(ARGS),all)

clean: ## stop the local stack, remove .venv and what tools left behind (data and downloads stay)
	@if [ -x $(BIN)/headrace ]; then $(BIN)/headrace down; fi
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, and \`$(PYTHON)\` is not: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "\`$(PYTHON)\` cannot create virtual environments. On Debian: apt-get install python3-venv" >&2; \
	    exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "installing headrace into $(VENV) (once; about a minute)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	@echo "installing headrace and its test tools into $(VENV) (once; about a minute)"
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/.installed $@
