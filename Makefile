# `make demo` needs Python 3.11 to 3.13, git and make; everything else goes into .venv and .distmark.
.DELETE_ON_ERROR:
.PHONY: help install packages demo up test test-room test-long check bench lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ROOM_TESTS = $(wildcard tests/unit/$(ROOM) tests/integration/$(ROOM) tests/$(ROOM))

help:
	@echo "make demo           everything with sample brands, partners and a simulated audience, until Ctrl-C"
	@echo "make demo ONCE=1    the same without a person: enrols, waits until every journey has ended, prints the results"
	@echo "make up             everything on this machine without demo data"
	@echo "make test           all tests, one process per core; ARGS=\"...\" are given to pytest"
	@echo "make test-room ROOM=entries    the tests of one room, on SQLite      make test-long    property tests, twenty times as deep"
	@echo "make check          style, types and arrows      make bench    benchmarks"
	@echo "make lock           pin the dependencies again   make clean    remove .venv and .distmark"

$(STAMP): requirements.lock pyproject.toml
	@bash .ci/venv $(VENV)
	@$(PIP) install --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)

packages:
	@bash .ci/packages

demo: $(STAMP)
	@exec $(BIN)/python -m distmark.cli demo $(if $(filter-out 0 no false,$(ONCE)),--once)

up: $(STAMP)
	@exec $(BIN)/python -m distmark.cli up

test: $(STAMP) packages
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

test-room: $(STAMP)
	@test -n "$(ROOM)" && test -n "$(ROOM_TESTS)" || { echo "make test-room ROOM=...: no room '$(ROOM)' has tests; these have:" \
	  $(sort $(notdir $(patsubst %/,%,$(wildcard tests/unit/*/ tests/integration/*/ tests/web/)))) >&2; exit 2; }
	DISTMARK_TEST_DATABASES=sqlite $(BIN)/python -m pytest --numprocesses auto $(ROOM_TESTS) $(ARGS)

test-long: $(STAMP) packages
	DISTMARK_TEST_DEPTH=20 $(BIN)/python -m pytest --numprocesses auto --timeout 3600 tests/property $$(grep -rl "examples(" tests/unit tests/integration) $(ARGS)

# The four tools run beside each other; each one's output stays together.
check: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 4 --output-sync=target check-lint check-format check-types check-arrows

.PHONY: check-lint check-format check-types check-arrows
check-lint:
	$(BIN)/ruff check .
check-format:
	$(BIN)/ruff format --check .
check-types:
	$(BIN)/mypy
check-arrows:
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.bench

lock: $(STAMP)
	@bash .ci/lock $(VENV)

clean:
	rm -rf $(VENV) .distmark build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
