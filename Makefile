# Each target is a line a person could type. Stamps in .venv make them idempotent.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST = timeout --foreground --signal=INT --kill-after=20 780 $(BIN)/python -m pytest
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install run stop test check verify bench python packages

help: ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1 \t\2/p' Makefile

install: packages $(VENV)/.installed ## install into .venv

run: install ## start Troupe here and walk a sample issue from intake to delivery
	$(BIN)/troupe demo

stop: ## stop what `make run` started
	@if [ -x $(BIN)/troupe ]; then $(BIN)/troupe down; else echo "Troupe is not installed here, so nothing runs."; fi

test: packages $(VENV)/.tests ## everything a change must pass; ten to fifteen minutes
	$(PYTEST) -n 2 -m "not ray and not slow and not live"
	$(PYTEST) -m "ray and not slow and not live"

check: $(VENV)/.checks ## lint, format, strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Exposure, secrets and a short chaos are among the slow tests.
verify: packages $(VENV)/.tests ## the larger kill and fault tests
	$(BIN)/python -m pytest -m "slow and not live"
	$(BIN)/troupe verify conformance
	$(BIN)/troupe verify simulate
	$(BIN)/troupe verify planted --alone
	$(BIN)/troupe verify crashpoints
	$(BIN)/troupe verify powerloss
	$(BIN)/troupe verify authorization
	$(BIN)/troupe verify schedules
	$(BIN)/troupe verify cron
	TROUPE_KILLS=150 $(BIN)/python -m pytest tests/acceptance/test_kills.py -s

bench: packages $(VENV)/.tests ## measure, with BENCH_HOME=... beside the peers that are there
	$(BIN)/python -m tests.benchmarks

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Troupe needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }

# The sandbox is bubblewrap. Without it every command of an agent is refused, so say it early.
# Each is program:package; the tests start a redis-server of their own.
PROGRAMS := bwrap:bubblewrap git:git
test verify bench: PROGRAMS += redis-server:redis-server
bench: PROGRAMS += wrk:wrk
packages:
	@missing=""; \
	for program in $(PROGRAMS); do \
	  command -v $${program%%:*} >/dev/null 2>&1 || missing="$$missing $${program##*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing Debian packages:$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get install -y -q --no-install-recommends $$missing >/dev/null 2>&1 \
	    || { apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; } && exit 0; \
	fi; \
	echo "Troupe needs$$missing; install with: sudo apt-get install$$missing" >&2

# Debian's python3 may lack ensurepip; its pip can then serve the environment.
$(VENV)/.created: | python
	$(PYTHON) -m venv --clear $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	  && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	$(PIP) install --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.checks: $(VENV)/.tests
	$(PIP) install --editable '.[test,check]'
	@touch $@
