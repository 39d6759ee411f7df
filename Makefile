# Every command of a checkout. Needs only make and Python 3.11 or newer; ARGS="…" is passed on.

.DEFAULT_GOAL := help
.PHONY: help run test check bench soak services lock docs wheel clean setup-run setup-dev

BIN := .venv/bin
CACHES := .hypothesis .mypy_cache .pytest_cache .ruff_cache

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

run: setup-run  ## start the demo, with nothing else installed
	@$(BIN)/celeriac demo $(ARGS)

# Two files at a time: they wait more than they compute. Alone, to look at output as it comes: make test ARGS="-n 0 -s"
test: setup-dev  ## run the tests; what needs a missing service is skipped
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup-dev  ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: setup-dev  ## measure against the baselines
	$(BIN)/python -m benchmarks $(ARGS)

soak: setup-dev  ## run the tests that take hours
	$(BIN)/python -m pytest -m soak --timeout=0 $(ARGS)

services:  ## install what the full tests start for themselves (Debian packages)
	@tools/services.sh

# Keeps the versions the locks have, unless told otherwise: make lock ARGS=--upgrade
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --group build

lock: setup-dev  ## write both requirements files anew from pyproject.toml
	$(LOCK) $(ARGS) -o requirements.txt
	$(LOCK) $(ARGS) -o requirements-dev.txt -c requirements.txt --group dev --extra postgres

docs: setup-dev  ## build the documentation into site/
	$(BIN)/mkdocs build --strict $(ARGS)

wheel: setup-dev  ## build the package into dist/
	$(BIN)/python -m hatchling build --target wheel

clean:  ## remove what make made; your data in .celeriac stays
	rm -rf .venv build dist site $(CACHES)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-run:
	@tools/setup.sh run

setup-dev:
	@tools/setup.sh dev
