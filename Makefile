# Two commands: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-library check clean

demo: $(VENV)/ready
	rm -rf runs/demo
	$(BIN)/python -m experiments compare split_digits --out runs/demo
	$(BIN)/python -m experiments report runs/demo

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2

# Importance and its engines alone, for another Python and the jax it gets: CI runs it on the
# newest there is, as `make test-library VENV=.venv-newest EXTRA=test PYTHON=python3.13`.
test-library: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 $(wildcard $(addsuffix *.py,$(addprefix tests/test_, \
	  adapters data_parallel estimate explain fused importance independence lowering \
	  multi_process per_sample fisher vector local)))

# What CI runs besides the tests.
check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

EXTRA ?= dev
$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mas_jax needs Python 3.11 or later: make PYTHON=python3.11")'
# Without a pip of its own: on Debian python3-pip comes without what venv would need to make one.
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[$(EXTRA)]'
	touch $@

clean:
	rm -rf .venv .venv-newest runs
