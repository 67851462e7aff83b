# `make run` and `make test` are all that a fresh machine needs (python3 with venv, make).

PYTHON ?= python3
BIN    := .venv/bin

.PHONY: run test e2e e2e-local soak bench screenshots check clean

run: .venv/server          ## set up, and start the appliance on 127.0.0.1:9000
	@exec $(BIN)/python app.py

test: .venv/test check     ## set up, check style and types, run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile

e2e: .venv/test            ## build the images, and check all of it together in containers; needs Docker
	$(BIN)/python -m tests.e2e compose

e2e-local: .venv/test      ## the same checks, with processes of this machine
	$(BIN)/python -m tests.e2e processes

soak: .venv/test           ## the tests of the file tree with many more odd stores and kills; takes an hour
	TREE_EXAMPLES=10000 TREE_KILLS=50 $(BIN)/python -m pytest --timeout 7200 tests/test_tree.py tests/test_restore.py tests/test_mirror.py

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/test          ## measure what the README quotes
	$(BIN)/python -m tests.bench

screenshots: .venv/test    ## take the README's pictures anew
	$(BIN)/python -m tests.screenshots

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/server: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv .venv || { echo "python3 needs its venv module: apt-get install python3-venv"; exit 1; }
	@echo "Installing what the server needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[server]'
	@touch $@

.venv/test: .venv/server
	@echo "Installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[server,test]'
	@touch $@
