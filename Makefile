# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test lint docs bench figures clean

run: $(READY)             ## the main job: a real git diff on a real kernel, 4K against PMD leaves
	$(BIN)/pagewalk run

test: $(VENV)/.test       ## every test
	$(BIN)/python -m pytest

lint: $(VENV)/.lint       ## format, style, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs       ## the documentation as HTML, in docs/_build
	$(BIN)/sphinx-build -q -W docs docs/_build

figures: $(READY)         ## the pictures and tables of README and docs, anew
	$(BIN)/python tools/figures.py

bench: $(VENV)/.bench     ## check the asv suite, then run it once here
	$(BIN)/asv machine --yes
	$(BIN)/asv check --python=same
	$(BIN)/asv run --python=same --quick --dry-run --show-stderr

clean:                    ## everything that these commands made
	rm -rf $(VENV) .asv out docs/_build

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

# A group of tools, installed from pyproject.toml's [dependency-groups] of that name.
$(VENV)/.%: $(READY) pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install -q --disable-pip-version-check --group $*
	@touch $@
