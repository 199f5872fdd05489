# `make demo` shows the main job on real photographs, `make test` checks everything. Both need python3.11 with pip and
# a package registry, make the environment once and use it again.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := model daemon config tests
SELECT ?= -m "not long"
GPU_PYTHON ?= python3
GPU_JSON ?= gpu.json

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
	$(PYTHON) -m venv $(VENV)
