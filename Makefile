# `make demo` and `make test` do all the set-up themselves, in .venv; Python 3.11 or later is all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast bench check docs install install-test install-docs clean

demo: $(VENV)/.installed   ## synthetic knees -> one network -> AUCs, in minutes
	$(BIN)/mrknee demo --out demo

test: $(VENV)/.installed-test check   ## lint, types, layers, then the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not browser"
	$(BIN)/python -m pytest -n auto --dist loadfile -m browser $$(grep -rl --include='test_*.py' 'browser: Browser' tests)

test-fast: $(VENV)/.installed-test   ## all tests but the slow ones, in a minute or two
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

docs: $(VENV)/.installed-docs   ## the documentation site, in docs/_build/html; the tutorials are executed
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.installed-test   ## speed beside the published loop, then memory and time of `default`, in minutes
	$(BIN)/python benchmarks/speed.py --quick
	$(BIN)/python benchmarks/memory.py bench --recipes reference default --slices 31

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test
install-docs: $(VENV)/.installed-docs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("mrknee needs Python 3.11 or later, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -e '.[lite0,frame,plot]'
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -e '.[lite0,test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -e '.[lite0,docs]'
	touch $@

clean:
	rm -rf $(VENV) demo docs/_build docs/_generated docs/reference/api
