# Everything goes into .venv of this folder. `make demo` and `make test` need nothing but Python >= 3.11 and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo serve test lint bench bench-full arrivals soak chaos gates fuzz format clean
.DEFAULT_GOAL := demo

demo: $(VENV)/node.stamp ## a phantom study from scanner to node to PACS, in half a minute
	@$(BIN)/dicomnode demo

serve: $(VENV)/node.stamp ## the node, as ./dicomnode.toml says
	@$(BIN)/dicomnode serve

test: $(VENV)/test.stamp ## the whole test suite
	@$(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/test.stamp ## style, types, import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/test.stamp ## speed and memory, beside DCMTK and Orthanc in one run: make bench ARGS='--only send'
	@$(BIN)/python -m bench $(ARGS)

bench-full: $(VENV)/test.stamp ## the same with CT and MR, and 1, 4 and 16 associations
	@$(BIN)/python -m bench --full $(ARGS)

arrivals: $(VENV)/test.stamp ## how often series are closed too early, and how late: figures and plot of docs/completeness.md
	@$(BIN)/python -m bench.arrivals $(ARGS)

soak: MINUTES ?= 60
soak: $(VENV)/test.stamp ## mixed load with all that goes wrong; nothing may be lost or leak: make soak MINUTES=60
	@$(BIN)/python -m bench.soak --minutes $(MINUTES)

chaos: SEEDS ?= 20
chaos: $(VENV)/test.stamp ## three machines and all that breaks; nothing may be lost or doubled: make chaos SEEDS=20
	@$(BIN)/python -m chaos --seeds $(SEEDS)

gates: DATA ?= ct
gates: $(VENV)/test.stamp ## faults planted into outputs of engines, and how many the gate catches: make gates DATA=/path/to/ct
	@$(BIN)/python -m trials --data $(DATA) $(ARGS)

fuzz: MINUTES ?= 10
fuzz: $(VENV)/test.stamp ## what reads bytes from outside, fed with odd ones: make fuzz MINUTES=60
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(BIN)/python -m fuzz --minutes $(MINUTES)

format: $(VENV)/test.stamp ## put the sources into shape
	@$(BIN)/ruff format

clean: ## forget the environment
	@rm -rf $(VENV)

$(VENV)/node.stamp: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo 'No environment could be made. On Debian and Ubuntu: sudo apt-get install python3-venv'; exit 1; }
	@echo 'Installing into $(VENV), which takes a minute or two the first time...'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/node.stamp
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
