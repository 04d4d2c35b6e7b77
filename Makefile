# `make demo` and `make test` set up what they need; `make install` does that alone.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LABEL_STUDIO := .venv-label-studio
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1


.PHONY: install demo test test-all label-studio lint lock clean help

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

# uv is itself pinned in requirements.lock; pip installs that one line, uv the rest.
define create_env
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	awk '/^uv==/{p=1} p{print} p&&!/\\$$/{exit}' requirements.lock > $(1)/uv.txt
	$(1)/bin/python -m pip install --quiet --require-hashes --no-deps -r $(1)/uv.txt
endef

$(VENV)/.installed: requirements.lock pyproject.toml
	$(call create_env,$(VENV))
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

$(LABEL_STUDIO)/.installed: tests/label-studio.lock requirements.lock
	$(call create_env,$(LABEL_STUDIO))
	$(LABEL_STUDIO)/bin/uv pip sync --quiet --require-hashes --compile-bytecode --python $(LABEL_STUDIO)/bin/python tests/label-studio.lock
	touch $@

install: $(VENV)/.installed  ## set up .venv and nothing else

demo: $(VENV)/.installed  ## render faces and run the whole line on them, to checked engines
	$(BIN)/fpenet run retrain --config examples/demo.yaml

test: $(VENV)/.installed $(LABEL_STUDIO)/.installed lint  ## the tests, against real servers; without those that take minutes each
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

test-all: $(VENV)/.installed $(LABEL_STUDIO)/.installed lint  ## every test: servers that restart, a Prefect that wakes flows, runs killed midway
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --hypothesis-profile thorough

label-studio: $(VENV)/.installed $(LABEL_STUDIO)/.installed  ## start a Label Studio for trying things, on loopback
	$(BIN)/fpenet label-studio serve

lint: $(VENV)/.installed  ## style and import contracts
	$(BIN)/ruff check .
	$(BIN)/lint-imports

lock: $(VENV)/.installed  ## resolve the lock files anew
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --extra rtx --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url tests/label-studio.in -o tests/label-studio.lock

clean:           ## remove the environments and the demo's workspace; others hold what can't be made again
	rm -rf $(VENV) $(LABEL_STUDIO) workspace/demo
