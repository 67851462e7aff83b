# `make run` and `make test` are all that a fresh machine needs (python3 with venv, make).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Tests write to memory where that has room for them, as most of what they wait for otherwise is the disk.
MEMORY := $(shell [ "$$(df -Pk /dev/shm 2>/dev/null | awk 'END {print $$4}')" -gt 4000000 ] 2>/dev/null && echo /dev/shm)
# Hundreds of tests start a server or an agent: they may keep what Python has compiled, whatever the caller's setting.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(MEMORY:%=TMPDIR=%) $(BIN)/python -m pytest
# Much of what tests do is waiting: four of them run on two processors, in the order that tests/conftest.py gives.
WORKERS  ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: run demo test test-long style e2e e2e-local soak bench screenshots check clean

# With SESSIONS_LAKE set, what it needs is installed too.
run: $(VENV)/server $(if $(SESSIONS_LAKE),$(VENV)/lake)  ## set up, and start the appliance on 127.0.0.1:9000
	@exec $(BIN)/python app.py

demo: $(VENV)/demo           ## the store and two LangGraph agents at work, without Docker, until Ctrl-C
	@exec $(BIN)/python containers/demo.py

test: $(VENV)/test style     ## set up, check style, run the tests but for those that take long
	$(PYTEST) $(PARALLEL) -m "not long"

# The types are checked beside the tests, which wait for much; what mypy says comes at the end.
test-long: $(VENV)/test      ## check types, run the others: many kills, power cuts, disk faults, random requests, examples
	@$(BIN)/mypy >$(VENV)/mypy.txt 2>&1 & \
	EXAMPLES=1 $(PYTEST) $(PARALLEL) -m "long or hypothesis"; tested=$$?; \
	wait $$!; checked=$$?; cat $(VENV)/mypy.txt; exit $$((tested + checked))

e2e: $(VENV)/test            ## build the images, and check all of it together in containers; needs Docker
	$(BIN)/python -m tests.e2e compose

e2e-local: $(VENV)/test      ## the same checks, with processes of this machine
	$(BIN)/python -m tests.e2e processes

# What `make test-long` does a little of, much oftener; SOAK_MINUTES is how long the mixed load with random faults goes on.
SOAK_MINUTES ?= 60
SOAK := SOAK_MINUTES=$(SOAK_MINUTES) POWER_CUTS=1000 DISK_FAULTS=800 KILLS=200 ENDS=50 STARTS=100 CLOCK_JUMPS=1000 \
        RETRIED_EVENTS=50000 LINES=2000000 CUT_REQUESTS=10000 TREE_EXAMPLES=10000 TREE_KILLS=50 \
        SWAPS=7000 DAMAGES=300 SENDER_KILLS=50 DISK_ROUNDS=100 API_EXAMPLES=250 API_SECONDS=1700 INTERLEAVINGS=1000 EXAMPLES=20 \
        CHAIN_RUNS=200 SEAL_KILLS=300 LAKE_KILLS=100 LAKE_EXAMPLES=2000 ASKED_BY_ENGINES=200000
SOAKED := soak interleavings power_cut disk_faults crash process start clock retries lines openapi bad_input wal tree restore \
          mirror sender disk lake_kills lake_chain lake_restore lake_ask lake_engines

soak: $(VENV)/engines        ## the tests of faults, of bad input and of the tree, with many more of each; takes some hours
	$(SOAK) $(PYTEST) -v -s --timeout 7200 $(SOAKED:%=tests/test_%.py)

check: style                 ## style and types
	$(BIN)/mypy

style: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/test          ## measure what the README quotes
	$(BIN)/python -m tests.bench

screenshots: $(VENV)/test    ## take the README's pictures anew
	$(BIN)/python -m tests.screenshots

clean:
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

PACKAGES := pyproject.toml packages/hook-agent/pyproject.toml constraints.txt
INSTALL  := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The two packages of this checkout are built by the setuptools that is here, not each by one that is fetched for it.
EDITABLE := $(INSTALL) --no-build-isolation

# The pip that came with Python may be old: those before 26 take twice as long to read the lists of what there is.
$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 needs its venv module: apt-get install python3-venv"; exit 1; }
	@$(INSTALL) --upgrade 'pip>=26' setuptools || $(INSTALL) --upgrade setuptools
	@touch $@

$(VENV)/server: $(VENV)/python $(PACKAGES)
	@echo "Installing what the server needs …"
	@$(EDITABLE) --editable . --editable packages/hook-agent
	@touch $@

$(VENV)/lake: $(VENV)/server
	@echo "Installing what a lake needs …"
	@$(EDITABLE) --editable '.[lake,ask]' --editable packages/hook-agent
	@touch $@

$(VENV)/demo: $(VENV)/server containers/requirements.txt
	@echo "Installing what the agents need …"
	@$(INSTALL) --requirement containers/requirements.txt
	@touch $@

$(VENV)/test: $(VENV)/python $(PACKAGES)
	@echo "Installing what the server and the tests need …"
	@$(EDITABLE) --no-compile --editable '.[test]' --editable packages/hook-agent
	@# On all processors, where pip uses one; not what is large, and of which little or nothing is imported.
	@$(BIN)/python -m compileall -qq -j 0 -x '/(anthropic|apprise|faker|mypy|pip|pygments)/' $(VENV)/lib || true
	@touch $(VENV)/server $@

# Hundreds of megabytes, which only ask a lake.
$(VENV)/engines: $(VENV)/test
	@echo "Installing other engines …"
	@$(EDITABLE) --editable '.[test,engines]' --editable packages/hook-agent
	@touch $@
