# make quickstart: the first study, from nothing; make check: what must hold before a commit.
PYTHON ?= python3
JOBS ?= 2
OUT ?= quickstart-out

VENV := .venv
BIN := $(VENV)/bin
USABLE := $(VENV)/usable
READY := $(VENV)/ready
CODE := src tests tools benchmarks

.PHONY: quickstart test test-slow check format lint types bench setup clean

quickstart: $(USABLE)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/headstart study quickstart $(OUT)

setup: $(READY)

# torch comes first and alone: what is installed with it must take it as it is.
$(USABLE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e '.[quickstart]'
	touch $(USABLE)

# What tests need besides: a browser's driver, a cluster, a type checker.
$(READY): $(USABLE)
	$(BIN)/pip install -c constraints.txt -e '.[cluster,dev,quickstart]'
	touch $(READY)

check: lint types test

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

lint: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(READY)
	$(BIN)/pyright --pythonpath $(BIN)/python

# Where CI is set, pytest prints differences whole, and those of planted mistakes take minutes.
CHROMIUM := $(shell command -v chromium || command -v chromium-browser)
SOME := not slow$(if $(CHROMIUM),, and not browser)

test: $(READY)
	$(if $(CHROMIUM),,@echo "no Chromium here: the page is not tested in a browser")
	env -u CI OMP_NUM_THREADS=1 $(BIN)/pytest -m "$(SOME)" -n $(JOBS) --dist loadfile

test-slow: $(READY)
	env -u CI OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

bench: $(READY)
	$(BIN)/pip install -q textbrewer  # a peer, for benchmarks/distil.py
	set -e; for file in benchmarks/*.py; do $(BIN)/python "$$file"; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
