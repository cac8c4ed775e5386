# Two commands for everybody: `make demo` and `make test`. Each makes the virtual environment that it needs, once.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
VM_PACKAGES = apt bc bison debian-archive-keyring dpkg e2fsprogs flex gcc libc6-dev libelf-dev make mmdebstrap \
	qemu-system-x86 rsync tar util-linux xz-utils
NETWORK_PACKAGES = iproute2

.PHONY: help demo demo-vm test test-vm vm-deps lint format coverage-vm pictures clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Show a live update on a simulated kernel
	@$(BIN)/luod demo

test: $(READY) ## Run the tests; with COVERAGE=1, show which branches they took
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=94
else
	$(BIN)/pytest $(PYTEST)
endif

vm-deps: ## Install Debian's packages that virtual machines and networks are made with (as root)
	apt-get update --quiet
	apt-get install --quiet --yes --no-install-recommends $(VM_PACKAGES) $(NETWORK_PACKAGES)

test-vm: $(READY) ## Run the tests that take a real kernel, in virtual machines
	$(BIN)/pytest -o faulthandler_timeout=600 --durations=20 tests/vm $(PYTEST)

demo-vm: $(READY) ## Show a live update of a real kernel
	@PYTHONPATH=tests $(BIN)/python -m vm.demo

lint: $(READY) ## Check style, types and what imports what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_imports.py

format: $(READY) ## Mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage-vm: $(READY) ## Run all tests, those on a real kernel too, and show which branches they took
	$(BIN)/coverage erase
	LUOD_VM_COVERAGE=1 $(BIN)/coverage run -m pytest tests $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

pictures: $(READY) ## Make the pictures in docs/ anew
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docs/capture.py docs/demo.svg 100 luod demo

clean: ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	@echo "Making $(VENV), once: this takes a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
