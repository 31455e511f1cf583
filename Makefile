# Everything is done by the `agentapi` command and the tools in pyproject.toml; these targets
# only make the virtual environment and call them.

PYTHON ?= python3
VENV := .venv
TOOLS := .tools
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PROVIDER ?= offline
WORKERS ?= 2
CONVERSATIONS ?= 40
TURNS ?= 5
KEEP ?=
CHAOS ?=
FAULTS ?=
SOAK ?=
BROWSERS ?=
FUZZ ?=
CLIENTS ?=
BENCH ?=
# More than the cores that the tests are made for: many of them wait for servers.
JOBS ?= 4

.DEFAULT_GOAL := help
.PHONY: help demo up test test-system browsers screenshots newest chaos faults fuzz soak clients bench docs check format lock clean

help: ## Explain every target
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo
	@echo "  Variables: PROVIDER=offline|openai|openrouter|gemini WORKERS=2 CONVERSATIONS=40 TURNS=5 KEEP=1"
	@echo '  make chaos CHAOS="--turns 10000 --kills 150 --lease 2 --heartbeat 0.5 --seed 1"'
	@echo '  make chaos CHAOS="--store sentinel --broker rabbitmq --turns 1000 --kills 20"'
	@echo '  make chaos CHAOS="--scenario poison --innocents 500 --poison 5 --weapon oom --workers 3"'
	@echo '  make faults FAULTS="--scenario turn --role worker --only suspend"'
	@echo '  make fuzz FUZZ="--minutes 10 --target chat --seed 1"'
	@echo '  make clients CLIENTS="--client langchain --case agent"'
	@echo '  make soak SOAK="--minutes 60 --seed 1"'
	@echo '  make browsers BROWSERS="--minutes 60 --browsers 10"'
	@echo '  make bench BENCH="--case throughput --contender celery --contender runtime --rounds 5"'

demo: $(READY) ## Run overlapping conversations on a stack of its own, and check them; KEEP=1 leaves it running
	$(BIN)/agentapi demo --provider $(PROVIDER) --workers $(WORKERS) --conversations $(CONVERSATIONS) --turns $(TURNS) $(if $(KEEP),--keep)

up: $(READY) ## Keep Valkey, workers, the gateway and Flower in the foreground; Ctrl-C stops them
	$(BIN)/agentapi up --workers $(WORKERS)

test: $(READY) ## Run all tests, with real servers and worker processes; fails below 90 % coverage
	rm -rf .coverage && mkdir .coverage
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-system: $(READY) ## Run the tests that need a Debian package: the console in Chromium, the alerts in promtool
	$(BIN)/python -m tests.system

browsers: $(READY) ## Keep browsers open on the console while turns run, and fail when anything grows
	$(BIN)/python -m tests.system.live $(BROWSERS)

screenshots: $(READY) ## Take the pictures of the console that are in docs/images
	$(BIN)/python -m tests.system.pictures

newest: $(READY) ## Run unit and conformance tests and the demo on the newest Python that this machine has
	$(BIN)/python -m tests.newest

chaos: $(READY) ## Kill, pause and restart workers and servers at random under load, and count what went wrong
	$(BIN)/python -m tests.chaos $(CHAOS)

fuzz: $(READY) ## Send malformed input of every kind to a real worker and gateway, for a given time, from a seed
	$(BIN)/python -m tests.fuzz $(FUZZ)

soak: $(READY) ## Run a mixed load with faults for a given time, and fail when anything grows
	$(BIN)/python -m tests.soak $(SOAK)

clients: $(READY) ## Run the quickstarts of 22 clients of OpenAI's API, each in an environment of its own, against the gateway
	$(BIN)/python -m tests.clients $(CLIENTS)

faults: $(READY) ## Make each step of worker, gateway and producer fail in every way, one by one; writes the matrix into docs/reliability.md
	$(BIN)/python -m tests.faultpoints $(FAULTS)

bench: $(READY) ## Measure beside what people would use instead, in at most a quarter of an hour
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(READY) ## Build the documentation into .site; any warning or dead link fails
	$(BIN)/python -m tools.site

check: $(READY) ## Format, lint, strict types, import arrows, lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TOOLS)/bin/uv lock --check

format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(TOOLS)/bin/uv ## Write the lock file anew after a change of dependencies
	$(TOOLS)/bin/uv lock

clean: ## Remove virtual environments, caches and the data of demo and up
	rm -rf $(VENV) .venv-newest .clients $(TOOLS) .site .coverage .agentapi .benchmarks .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(TOOLS)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "agentapi needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv

$(READY): pyproject.toml uv.lock | $(TOOLS)/bin/uv
	$(TOOLS)/bin/uv sync --frozen --python $(PYTHON)
	@touch $@
