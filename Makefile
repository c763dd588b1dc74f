# Everything a person or a machine does with this repository, by name. `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin
OUT = demo
ARGS =
UPGRADE =
READY := .venv/ready

# Without its compiled files torch takes ten seconds to load, every time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check docs lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

setup: $(READY) ## make .venv with everything in it; costs nothing when nothing changed

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d is too old: thawmap needs 3.11 or newer; name one with: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'setting up .venv; the first time this takes some minutes'
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	@touch $(READY)

demo: $(READY) ## simulate scenes, train, map and evaluate them; pictures in ./demo (or OUT=folder)
	$(BIN)/thawmap demo --out "$(OUT)"

test: $(READY) ## the tests; ARGS="tests/test_grid.py -k ramp" for some of them
	@scripts/test $(ARGS)

test-fast: $(READY) ## what tells most in a minute or so, of every part; the rest is left to test
	@scripts/test -m "not slow" --hypothesis-profile=fast $(ARGS)

check: $(READY) ## lint, format, types, import contract, documentation
	@scripts/check

docs: $(READY) ## the documentation as web pages in ./site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(READY) ## requirements.lock anew from pyproject.toml; UPGRADE=--upgrade for the newest versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.0 --extra dev $(UPGRADE) \
		--no-header --no-annotate --output-file requirements.lock pyproject.toml
	@# These belong to the host: its torch decides (pyproject.toml asks for the oldest that will do).
	sed -i.old -E '/^(torch|torchvision|triton|setuptools|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)[ =]/d' requirements.lock
	@rm requirements.lock.old

clean: ## remove what was made here, but not .venv, models or maps
	rm -rf demo site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
