# Everything runs in its own virtual environment, built from the tested versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo toy intervention test test-slow test-loggers test-clusters test-all lint docs bench foreign clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e ".[test,dev]" -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps curvlinops-for-pytorch -c constraints.txt
	touch $@

$(VENV)/.rivals: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[benchmarks]" -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps kronfluence -c constraints.txt
	touch $@

$(VENV)/.loggers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[loggers]" -c constraints.txt
	touch $@

$(VENV)/.clusters: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[clusters]" -c constraints.txt
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[docs]" -c constraints.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/stagewise fit -c configs/induction.yaml
	@$(BIN)/stagewise report "$$(ls -td runs/induction/version_* | head -1)"
	@echo "TensorBoard:  $(BIN)/tensorboard --logdir runs --host 127.0.0.1"

toy: $(VENV)/.installed
	$(BIN)/stagewise toy -c configs/toy.yaml

intervention: $(VENV)/.installed
	$(BIN)/stagewise intervene -c configs/intervention.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist worksteal

# Tests against the real Weights & Biases, MLflow and Comet, offline. Last, so that other tests run without these packages.
test-loggers: $(VENV)/.loggers
	$(BIN)/python -m pytest tests/reporting/loggers tests/callbacks/test_logger_writers.py

# Tests on local Dask and Ray clusters of two workers each.
test-clusters: $(VENV)/.clusters
	$(BIN)/python -m pytest tests/jobs/test_clusters.py

test-all:
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) test-loggers
	$(MAKE) test-clusters

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Treats warnings as errors and fetches nothing. The variable silences an advertisement of the theme.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.rivals
	mkdir -p benchmarks/results
	for name in engines whole_probe covariance accuracy datamodeling classes heads baselines newcomers equilibrium long_run; do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; \
	done

# Installs about twenty packages, each into its own environment under .foreign. Needs gigabytes and most of an hour.
foreign: $(VENV)/.installed
	$(BIN)/python benchmarks/foreign/run.py --json benchmarks/results/foreign.json --markdown docs/foreign.md

clean:
	rm -rf $(VENV) runs site
