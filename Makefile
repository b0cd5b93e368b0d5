# Everything runs in a virtual environment of its own, made from the tested versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e ".[test,dev]" -c constraints.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/stagewise fit -c configs/induction.yaml
	@echo
	@echo "Look at the curves:  $(BIN)/tensorboard --logdir runs --host 127.0.0.1"

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
