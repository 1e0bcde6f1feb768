# Everything needs Python 3.11 or newer and nothing else installed: `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PEERS := .venv-bench
STREAMS := bench/peers/kafka_streams

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate acceptance chaos lint bench clean
.DELETE_ON_ERROR:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-test ## create .venv with everything that the tests need

demo: $(VENV)/.installed ## from ticks to fills on a real Kafka and TimescaleDB (ARGS="--json" and others)
	@$(BIN)/headrace demo $(ARGS)

test: $(VENV)/.installed-test ## the whole test suite but the long acceptance runs (ARGS="-k name")
	@$(BIN)/python -m tests $(ARGS)

simulate: $(VENV)/.installed-test ## simulated worlds, as many as one likes (ARGS="--worlds 100000")
	@$(BIN)/python -m tests.simulation $(ARGS)

acceptance: $(VENV)/.installed-test ## the long runs: real sessions in full, kills of every process, figures
	@$(BIN)/python -m pytest tests/acceptance --timeout 2400 $(ARGS)

chaos: $(VENV)/.installed-test ## kill and stop everything while ticks flow, run after run (ARGS="--runs 3" and others)
	@$(BIN)/python -m tests.chaos $(ARGS)

lint: $(VENV)/.installed-test ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.installed-test $(PEERS)/.installed $(STREAMS)/target/.built ## measure, beside other frameworks (ARGS="throughput" and others)
	@$(BIN)/headrace bench $(or $(ARGS),all)

clean: ## stop the local stack, remove .venv and what tools left behind (data and downloads stay)
	@if [ -x $(BIN)/headrace ]; then $(BIN)/headrace down; fi
	rm -rf $(VENV) $(PEERS) $(STREAMS)/target build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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

# What Headrace is measured against. A peer that cannot be had here is left out of the tables, and they say so.
$(PEERS)/.installed: bench/peers/requirements.txt | $(VENV)/.created
	@echo "installing the peers of the bench into $(PEERS) (once; about a minute)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install -r $< \
	    && touch $@ || echo "the peers cannot be installed here: the bench goes on without them" >&2

$(STREAMS)/target/.built: $(STREAMS)/pom.xml $(wildcard $(STREAMS)/src/main/java/headrace/bench/*.java)
	@echo "building the Kafka Streams peer (once; about half a minute)"
	@mvn --quiet --batch-mode -Dstyle.color=never --file $< package \
	    && touch $@ || echo "Kafka Streams needs Maven and a JDK, 17 or newer: the bench goes on without it" >&2
