# Two commands for a newcomer: `make run` and `make test`. Both make their own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Many processes import the same files: bytecode is kept, even where the shell asks Python to keep none.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env env-test run finding test test-all lint types gpu notebook space-audit drill clean

env: $(VENV)/.installed
env-test: $(VENV)/.installed-test

# The tested versions come from constraints.txt; torch first, so that nothing pulls in another build of it.
# What is imported is compiled then, and the rest never: a third of the time of compiling all files on installation.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-compile --upgrade -c constraints.txt pip setuptools
	$(PIP) install -q --no-compile -c constraints.txt torch
	$(PIP) install -q --no-compile -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -q --no-compile -c constraints.txt -e '.[test,postgres,importance]'
	@touch $@

run: env
	$(BIN)/miras-search run studies/bias.yaml

# The finding that README shows, from its lock to its table and figures: about 320 trainings.
finding: env
	$(BIN)/miras-search plan studies/bias_full.yaml --lock --margin 0.05
	$(BIN)/miras-search run studies/bias_full.yaml
	$(BIN)/miras-search export bias_full -o exports/bias_full --force

lint: env-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env-test
	$(BIN)/mypy --num-workers auto

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow"

# Those that take minutes too.
test-all: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

# Needs a CUDA device, torch and triton alone: kernel tests, benches, and a study where ray is there, in the Python at hand.
gpu:
	sh benchmarks/gpu.sh $(PYTHON)

# docs/api.md executed by Jupyter.
notebook: env
	$(PIP) install -q --no-compile -c constraints.txt -e '.[notebook]'
	$(BIN)/python docs/notebook.py

# Random points of the whole space: valid, their spellings lead back to them, and some train. A quarter of an hour.
space-audit: env-test
	OMP_NUM_THREADS=1 $(BIN)/python -m miras_search.bench.space_audit

# A study on two simulated Ray nodes under thirty random faults. A quarter of an hour; its last line counts the checks.
drill: env-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/engine/engine_drill.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
