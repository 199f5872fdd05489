# `make demo` shows the main job on real photographs, `make test` checks everything. Both need a Python from 3.11 on with
# venv, and a package registry; they make the environment once and use it again. `make PYTHON=...` names another Python.

# Those that were tried come first. A name that stands there may still not run, such as a shim of pyenv: see below.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := model daemon config tests
SELECT ?= -m "not long"
GPU_PYTHON ?= python3
GPU_JSON ?= gpu.json

.DELETE_ON_ERROR:
.PHONY: demo test test-long gpu check format clean

demo: $(VENV)/installed-demo
	$(BIN)/rejectd demo

test: check
	$(BIN)/pytest $(SELECT)

test-long: $(VENV)/installed-test
	$(BIN)/pytest -m long

# On a bare machine with a GPU: Python with torch, NumPy and pytest, nothing installed and no network.
gpu:
	PYTHONPATH=model $(GPU_PYTHON) tests/bench/gpu.py --json $(GPU_JSON)

check: $(VENV)/installed-test
	$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: make format"; exit 1; }
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports
	$(BIN)/rejectd reference --check config
	$(BIN)/python config/prometheus/runbook.py --check
	$(BIN)/python config/grafana/build.py --check

format: $(VENV)/installed-test
	$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	$(BIN)/ruff format --quiet $(SOURCES)

clean:
	rm -rf $(VENV) demo-run build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/installed-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@

$(VENV)/bin/python:
	@lacking=; for python in $(PYTHONS); do \
	  $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || continue; \
	  $$python -c "import ensurepip, venv" 2>/dev/null || { lacking="$$lacking $$python"; continue; }; \
	  echo "$(VENV): made with $$($$python --version) ($$python)"; \
	  exec $$python -m venv $(VENV); \
	done; \
	echo "make: no Python from 3.11 on that runs and has venv; tried: $(PYTHONS)" >&2; \
	for python in $$lacking; do \
	  echo "hint: $$python has no venv or no ensurepip; on Debian and Ubuntu: apt install $$(basename $$python)-venv" >&2; \
	done; \
	echo "hint: install Python, or name one: make PYTHON=/path/to/python3" >&2; exit 1
