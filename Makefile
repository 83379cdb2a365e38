# Every target sets itself up from a bare clone: the environment is made in .venv, once.
VENV    ?= .venv
PYTHON  ?= python3
CONFIG  ?= configs/default.toml
STORY   ?=
PORT    ?= 5000
TRIALS  ?= 30
BIN     := $(VENV)/bin
STORE   := $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)

export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup train sweep benchmark predict ui bundle gc check test lint clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=24'
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,dev]' -c constraints.txt
	touch $@

setup: $(VENV)/.ok  ## Make the environment in .venv

train: $(VENV)/.ok  ## Train, keep the experiment in MLflow, promote the better model (CONFIG=…)
	$(BIN)/themewire train $(CONFIG)

sweep: $(VENV)/.ok  ## Search a family's settings (CONFIG=configs/encoder.toml TRIALS=30)
	$(BIN)/themewire sweep $(CONFIG) --trials $(TRIALS)

benchmark: $(VENV)/.ok  ## Measure the families and their peers on a data set (DATA=folder)
	$(BIN)/python -m tests.benchmarks.compare $(or $(DATA),$(error name a folder: make benchmark DATA=…)) $(if $(CONFIGS),--configs $(CONFIGS))

predict: $(VENV)/.ok  ## Tag a story: make predict STORY=story.txt
	$(BIN)/themewire predict $(or $(STORY),$(error name a story: make predict STORY=story.txt))

ui: $(VENV)/.ok  ## Open the experiments at http://127.0.0.1:5000 (PORT=…)
	$(BIN)/mlflow ui --backend-store-uri $(STORE) --port $(PORT)

bundle: $(VENV)/.ok  ## Write the champion as one file, champion.zip, that --model takes anywhere
	$(BIN)/themewire pack --output champion.zip

gc: $(VENV)/.ok  ## Delete failed, killed and deleted runs from MLflow; registered versions stay
	$(BIN)/themewire gc

check: $(VENV)/.ok  ## Look the corpus over
	$(BIN)/themewire check $(CONFIG)

test: $(VENV)/.ok  ## Run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.ok  ## Run ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:  ## Remove caches and builds; models, experiments and .venv stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .themewire
	find train tests -name __pycache__ -type d -prune -exec rm -rf {} +
