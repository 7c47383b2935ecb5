# What one types here. `make` alone lists it; nothing is needed but make and Python 3.11 or newer.

# Another interpreter: make PYTHON=/opt/python3.12/bin/python3 demo
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)

# The active virtual environment, else one of our own. It is filled once, and again when pyproject.toml has changed.
VENV := $(or $(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.pf-stream-installed

.DEFAULT_GOAL := help
# Options of the comparison with peers: make bench BENCH='--quick', BENCH='--engines pf_stream,kafka-streams --rounds 5'
BENCH ?=
# How long `make chaos` and `make soak` last, and what decides the course of the former and of `make fuzz`; another each time
# by default.
MINUTES ?=
SEED ?=

# Without byte code each process that a test or a benchmark starts would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-stop test brokers check unit simulate fuzz bench chaos soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## See 84,194 flights go through Kafka; EVERY=1 sends all 336,776, KEEP=1 leaves Kafka and the worker running
	@$(BIN)/python topologies/flights/demo.py

demo-stop: $(INSTALLED) ## Stop what KEEP=1 left running
	@$(BIN)/python topologies/flights/demo.py --stop

# Half of the tests on Kafka wait most of the time, so four processes keep two cores busy.
test: brokers check ## Run the checks and every test, those on a real Kafka included
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# Brokers start in half the time when their classes are laid out beforehand, which goes on beside the checks.
brokers: $(INSTALLED)
	@$(BIN)/python -P -m pf_stream.kafka.dev._train >/dev/null 2>&1 &

check: $(INSTALLED) ## Lint, format, types, and the rule of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A timer thread for each test, and a handler on each logger for each of its phases, would take an eighth of the time.
unit: $(INSTALLED) ## Run what needs no Kafka and is quick, with few examples: the inner loop
	$(BIN)/python -m pytest -n 2 --dist worksteal -p no:logging -o faulthandler_timeout=0 \
		-m "not slow" --hypothesis-profile "few examples" tests/unit

simulate: $(INSTALLED) ## Simulate crashes and zombies, every second seed with streams: SEEDS=10000; SEED=17 replays one
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),2000) $(if $(SEED),--seed $(SEED))

fuzz: $(INSTALLED) ## Send broken tokens and records to what reads them: INPUTS=1000000; SEED=n for the same again
	@$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED) ## Measure pf_stream beside its peers, then flights and decisions: ROUNDS=5; BENCH=--quick for two minutes
	@$(BIN)/python -m bench.peers $(BENCH)
	@if [ -z "$(BENCH)" ]; then $(BIN)/python bench/flights.py && $(BIN)/python bench/decisions.py; fi

chaos: $(INSTALLED) ## Kill, pause and cut off workers and brokers for MINUTES=5, then count; SEED=n replays
	@$(BIN)/python -m tests.chaos.campaign $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

soak: $(INSTALLED) ## Run at half load for MINUTES=30 and see whether memory, files or latency grow
	@$(BIN)/python bench/soak.py $(if $(MINUTES),--minutes $(MINUTES))

clean: ## Delete caches and what was built; the virtual environment stays
	@if [ -d .pf/demo ]; then $(BIN)/python topologies/flights/demo.py --stop; fi
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@if ! [ -x $(BIN)/python ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "pf_stream needs Python 3.11 or newer, and there is none on the path." >&2; \
			echo "Name one: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; \
		fi; \
		echo "creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "pf_stream needs Python 3.11 or newer; $(BIN)/python is $$($(BIN)/python --version)." >&2; \
		echo "Delete $(VENV), or leave that environment, and name another: make PYTHON=/path/to/python3.12 demo" >&2; \
		exit 1; }
	@echo "installing pf_stream with its extras into $(VENV): once, a minute or two"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'
	@touch $@
