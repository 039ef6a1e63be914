# Two commands: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/ready
	rm -rf runs/demo
	$(BIN)/python -m experiments compare split_digits --out runs/demo
	$(BIN)/python -m experiments report runs/demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2

# What CI runs besides the tests.
check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mas_jax needs Python 3.11 or later: make PYTHON=python3.11")'
# Without a pip of its own: on Debian python3-pip comes without what venv would need to make one.
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
