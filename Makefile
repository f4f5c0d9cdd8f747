# Verbs for people. Each one sets up what it needs in .venv first; nothing outside this folder is touched.
# Options: PYTHON=/path/to/python3.x picks the interpreter, ARGS="…" is passed on (make demo ARGS="--port-base 27000").

.DEFAULT_GOAL := help
.PHONY: help setup demo test check deep integration owasp bench bench-ca bench-quick lock clean
ARGS ?=
export PYTHON

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# What HTTP/1 must do whichever way a request goes: these run once more with every request on the general way.
BOTH_WAYS := tests/memory tests/integration/bad_input tests/integration/test_conformance.py \
	tests/integration/test_conformance_vectors.py tests/integration/test_curl.py tests/integration/test_httpx.py \
	tests/integration/test_upstream_failures.py

help: ## what can be made
	@echo "make VERB [ARGS=…] [PYTHON=…]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

setup: ## make .venv for running and testing (the other verbs do this by themselves)
	@scripts/setup.sh dev

demo: ## run the demo: a CA, three services, a live table of hops; Ctrl-C ends it
	@scripts/setup.sh run
	@$(BIN)/mesh up $(ARGS)

test: ## all that must hold before a change lands: linters, types, all tests but the deep ones (the soak: a tenth)
	@scripts/setup.sh dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.bench.count
	$(PYTEST) -m "not deep and not integration" -n 2 $(ARGS)
	@scripts/stage.sh -m "not deep and integration and not alone" -n 3 $(ARGS)
	MESH_HTTP1_READER=h11 $(PYTEST) -m "not deep and not alone" -n 2 $(BOTH_WAYS) $(ARGS)
	@scripts/stage.sh -m "not deep and alone" $(ARGS)

check: ## the quick half of that: linters, types, tests without real programs
	@scripts/setup.sh dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not deep and not integration" -n 2 -q $(ARGS)

integration: ## tests with real sockets and real programs (what is not installed is skipped, and named)
	@scripts/setup.sh dev
	@scripts/stage.sh -m "not deep and integration and not alone" -n 2 $(ARGS)
	@scripts/stage.sh -m "not deep and alone" $(ARGS)

deep: ## what takes hours: a million connections, 200 runs of random events, 2 GiB bodies, long fuzzing
	@scripts/setup.sh dev
	$(PYTEST) -m deep -o faulthandler_timeout=7200 $(ARGS)

owasp: ## the attacks of docs/owasp: what each gets without the mesh and with it, and what refused it
	@scripts/setup.sh dev
	@$(BIN)/python -m tests.kit.cookbook

bench: ## CPU and latency per request, ours and others' (ARGS="--row inbound --short" for a first look, --help)
	@scripts/bench-env.sh
	@.venv-bench/bin/python -m tests.bench $(ARGS)

bench-ca: ## certificates a second on one core beside a loop of openssl; 1,000 sidecars that renew in one minute, or at once
	@scripts/setup.sh dev
	@$(BIN)/python -m tests.ca.bench --exit $(ARGS)
	@$(BIN)/python -m tests.ca.same_minute
	@$(BIN)/python -m tests.ca.burst

bench-quick: ## Python's own steps per request, counted; fails when they are 2 % over the limit (ARGS=--update records)
	@scripts/setup.sh dev
	@$(BIN)/python -m tests.bench.count $(ARGS)

lock: ## pin the dependencies anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@scripts/lock.sh $(ARGS)

clean: ## remove .venv and every cache
	rm -rf .venv .venv-bench .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
