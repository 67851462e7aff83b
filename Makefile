# `make run` and `make test` are all that a fresh machine needs (python3 with venv, make).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Hundreds of tests start a server or an agent: they may keep what Python has compiled, whatever the caller's setting.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# Much of what tests do is waiting: three of them run on two processors. Files in the order of their names: those that
# take longest are among the first, and small ones fill the end.
WORKERS  ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)))
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: run demo test test-long e2e e2e-local soak bench screenshots check clean

# With SESSIONS_LAKE set, what it needs is installed too.
run: $(VENV)/server $(if $(SESSIONS_LAKE),$(VENV)/lake)  ## set up, and start the appliance on 127.0.0.1:9000
	@exec $(BIN)/python app.py

demo: $(VENV)/demo           ## the store and two LangGraph agents at work, without Docker, until Ctrl-C
	@exec $(BIN)/python containers/demo.py

test: $(VENV)/test check     ## set up, check style and types, run the tests but for those that take long
	$(PYTEST) $(PARALLEL) -m "not long"

test-long: $(VENV)/test      ## run the others: many kills, power cuts, disk faults, clock jumps, random requests
	$(PYTEST) $(PARALLEL) -m long

e2e: $(VENV)/test            ## build the images, and check all of it together in containers; needs Docker
	$(BIN)/python -m tests.e2e compose

e2e-local: $(VENV)/test      ## the same checks, with processes of this machine
	$(BIN)/python -m tests.e2e processes

# What `make test-long` does a little of, much oftener; SOAK_MINUTES is how long the mixed load with random faults goes on.
SOAK_MINUTES ?= 60
SOAK := SOAK_MINUTES=$(SOAK_MINUTES) POWER_CUTS=1000 DISK_FAULTS=800 KILLS=200 ENDS=50 STARTS=100 CLOCK_JUMPS=1000 \
        RETRIED_EVENTS=50000 LINES=2000000 CUT_REQUESTS=10000 TREE_EXAMPLES=10000 TREE_KILLS=50 \
        SWAPS=7000 DAMAGES=300 SENDER_KILLS=50 DISK_ROUNDS=100 API_EXAMPLES=250 API_SECONDS=1700 INTERLEAVINGS=1000
SOAKED := soak interleavings power_cut disk_faults crash process start clock retries lines openapi bad_input wal tree restore \
          mirror sender disk

soak: $(VENV)/test           ## the tests of faults, of bad input and of the tree, with many more of each; takes some hours
	$(SOAK) $(PYTEST) -v -s --timeout 7200 $(SOAKED:%=tests/test_%.py)

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test          ## measure what the README quotes
	$(BIN)/python -m tests.bench

screenshots: $(VENV)/test    ## take the README's pictures anew
	$(BIN)/python -m tests.screenshots

clean:
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/server: pyproject.toml packages/hook-agent/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 needs its venv module: apt-get install python3-venv"; exit 1; }
	@echo "Installing what the server needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --editable packages/hook-agent
	@touch $@

$(VENV)/lake: $(VENV)/server
	@echo "Installing what a lake needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lake,ask]' --editable packages/hook-agent
	@touch $@

$(VENV)/demo: $(VENV)/server containers/requirements.txt
	@echo "Installing what the agents need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement containers/requirements.txt
	@touch $@

$(VENV)/test: $(VENV)/server
	@echo "Installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]' --editable packages/hook-agent
	@touch $@
