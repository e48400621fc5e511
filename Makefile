# Two commands matter: `make demo` (fresh clone to finished report) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PEERS_STAMP := $(VENV)/.installed-peers
DOCS_STAMP := $(VENV)/.installed-docs
MUTATION_STAMP := $(VENV)/.installed-mutation
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
RECIPE ?= utd_mhad
CLUSTER ?= tests/cluster
RAY_ADDRESS ?= http://127.0.0.1:8265
WORKSPACE ?= $(CURDIR)
export RAY_DEDUP_LOGS ?= 1

.PHONY: demo test test-cluster style quality docs bench mutate results submit clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

$(PEERS_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[peers]"
	@touch $@

demo: $(STAMP)  ## from a fresh clone to the report
	$(BIN)/python -m pipelines.demo

test: $(DEV_STAMP)  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-cluster: $(DEV_STAMP)  ## several Ray nodes on this machine, some of them lost; needs root
	$(BIN)/python -m pytest $(CLUSTER) --timeout=1800 $(PYTEST_ARGS)

style: $(DEV_STAMP)  ## format and fix
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

quality: $(DEV_STAMP)  ## lint, types, import directions
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

$(DOCS_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

docs: $(DOCS_STAMP)  ## the documentation site, in artifacts/site
	$(BIN)/python -m pipelines.reference
	$(BIN)/mkdocs build --strict

bench: $(DEV_STAMP) $(PEERS_STAMP)  ## all benchmarks, or one: make bench NAME=attack_step
	$(BIN)/python -m benchmarks $(NAME) $(BENCH_ARGS)

$(MUTATION_STAMP): $(DEV_STAMP)
	$(PIP_INSTALL) -e ".[mutation]"
	@touch $@

mutate: $(MUTATION_STAMP)  ## small breaks of the core, and which the tests notice (minutes to hours)
	$(BIN)/python -m benchmarks mutation -- $(MUTATE_ARGS)

results: $(STAMP)  ## make the rows of a recipe again: make results RECIPE=utd_mhad
	$(BIN)/python -m pipelines.recipe $(RECIPE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	$(BIN)/python -m pipelines.results

submit: $(STAMP)  ## run the pipeline as a job on a Ray cluster
	$(BIN)/python -m pipelines.submit '$(RAY_ADDRESS)' --workspace '$(WORKSPACE)' $(STAGES)

clean:
	rm -rf artifacts .pytest_cache .ruff_cache .mypy_cache
