.DEFAULT_GOAL := help
PYTEST := .venv/bin/python -m pytest
unexport PYTHONDONTWRITEBYTECODE  # else each process of pytest compiles every test
PARALLEL := --numprocesses 3 --dist worksteal
ENGINE := docker version >/dev/null 2>&1
NO_ENGINE := { echo "no container engine answers: tests/image did not run" >&2; [ -z "$$CI" ]; }

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is needed, and leave .venv/bin/worker
	@scripts/bootstrap api

run: setup ## Run the example task with a live view on http://127.0.0.1:6080/
	.venv/bin/worker run worker/examples/tour.py

test-unit: setup-dev ## Run the unit tests
	$(PYTEST) tests/unit

test: setup-dev ## Run what every change needs: unit tests and the real programs
	$(PYTEST) $(PARALLEL)

test-all: test ## Run what CI runs: `test`, the measuring tests, and the image tests
	$(PYTEST) -m measured
	@if $(ENGINE); then $(MAKE) image test-image; else $(NO_ENGINE); fi

soak: setup-dev ## Repeat tests for rare races, kill and limit programs at random, fuzz for 10 minutes
	$(PYTEST) $(PARALLEL) -m soak
	@if $(ENGINE); then $(MAKE) image && $(PYTEST) -m soak tests/image; else $(NO_ENGINE); fi
	scripts/fuzz --seconds 600

lint: setup-dev ## Check style, types, layers, the pages' JavaScript and the shell scripts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/tsc --project scripts
	shellcheck $$(git grep --files-with-matches --perl-regexp '^#!/(usr/bin/env |bin/)(ba)?sh\b' -- scripts .ci worker)

fuzz: setup-dev ## Attack a stream server and x11vnc with mutated bytes for 10 minutes
	scripts/fuzz --seconds 600

attack: setup-dev ## Attack an API as a hostile account, viewer and client for 10 minutes
	scripts/attack --seconds 600

bench: setup-bench ## Measure speed and cost against comparable programs; takes about 15 minutes
	scripts/bench

image: ## Build the images `worker`, `worker-gateway` and `worker-api`; IMAGE=NAME names them otherwise
	@scripts/image

test-image: setup-dev ## Run the tests of the built images
	$(PYTEST) tests/image

clean: ## Remove what was made
	rm -rf .venv artifacts build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis

setup-bench:
	@scripts/bootstrap dev api

setup-dev:
	@scripts/bootstrap dev

.PHONY: help setup run test-unit test test-all soak lint fuzz attack bench image test-image clean setup-bench setup-dev
