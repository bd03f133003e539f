# Both `make demo` and `make test` work on a fresh machine with Python 3.11 or newer: whichever comes
# first makes .venv and installs into it, the other finds it there.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo test lint types units slow format clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED)  ## the tour, on people that it draws itself: out/demo/report.html
	$(BIN)/w2w demo --out out/demo

test: lint types units  ## all that a change must pass: lint, types and the quick tests

lint: $(INSTALLED)  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## pyright on src
	$(BIN)/pyright

units: $(INSTALLED)  ## the quick tests: CPU, offline, under five minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

format: $(INSTALLED)  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and all caches
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
