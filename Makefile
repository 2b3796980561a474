# `make demo` needs Python 3.11 to 3.13, git and make; everything else goes into .venv and .distmark.
.DELETE_ON_ERROR:
.PHONY: help install demo up test check bench lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

help:
	@echo "make demo           everything with sample brands, partners and a simulated audience, until Ctrl-C"
	@echo "make demo ONCE=1    the same without a person: enrols, waits until every journey has ended, prints the results"
	@echo "make up             everything on this machine without demo data"
	@echo "make test           all tests      make check   style, types and arrows      make bench   benchmarks"
	@echo "make lock           pin the dependencies again      make clean   remove .venv and .distmark"

$(STAMP): requirements.lock pyproject.toml
	@bash .ci/venv $(VENV)
	@$(PIP) install --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	@exec $(BIN)/python -m distmark.cli demo $(if $(filter-out 0 no false,$(ONCE)),--once)

up: $(STAMP)
	@exec $(BIN)/python -m distmark.cli up

test: $(STAMP)
	@bash .ci/packages
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.bench

lock: $(STAMP)
	@bash .ci/lock $(VENV)

clean:
	rm -rf $(VENV) .distmark build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
