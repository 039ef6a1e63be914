# Two commands: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-library test-core check audit clean

demo: $(VENV)/ready
	rm -rf runs/demo
	$(BIN)/python -m experiments compare split_digits --out runs/demo
	$(BIN)/python -m experiments report runs/demo

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2

# What depends on the versions of jax, flax and Orbax, for CI to run on others than the newest that
# this Python gets. What varies numbers and not programs is left out: NUMBERS, and most examples.
STORE := $(wildcard tests/test_store*.py) $(addprefix tests/test_, golden_store.py \
  host_arrays.py importance_codes.py lock.py manifest.py)
ENGINES := $(wildcard tests/test_fused_*.py) $(addprefix tests/test_, adapters.py \
  data_parallel.py estimate.py explain.py independence.py local.py lowering.py multi_process.py)
CORE := $(addprefix tests/test_, adapters.py anchor.py estimate.py fused_plan.py lowering.py \
  penalty.py)
NUMBERS := $(addprefix --deselect tests/test_, fused_traps.py::test_double_precision \
  fused_networks.py::test_low_precision_is_close_to_float32 local.py::test_fused_equals_vmap)
FEW := $(BIN)/python -m pytest -n 2 --hypothesis-profile few

# `make test-library VENV=.venv-newest EXTRA=test PYTHON=python3.13`
test-library: $(VENV)/ready
	$(FEW) $(STORE) $(ENGINES) $(NUMBERS)

# `make test-core VENV=.venv-oldest EXTRA=test LOWEST=1`
test-core: $(VENV)/ready
	$(FEW) $(STORE) $(CORE)

# What CI runs besides the tests.
check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Known vulnerabilities of what is installed; pip-audit itself is kept out of there.
audit: $(VENV)/ready
	$(PYTHON) -m venv --without-pip .venv-audit
	$(PYTHON) -m pip --python .venv-audit/bin/python install --quiet 'pip-audit==2.10.1'
	.venv-audit/bin/python .ci/audit.py .venv-audit/bin/pip-audit \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

EXTRA ?= dev
$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mas_jax needs Python 3.11 or later: make PYTHON=python3.11")'
# Without a pip of its own: on Debian python3-pip comes without what venv would need to make one.
	$(PYTHON) -m venv --without-pip $(VENV)
# With LOWEST set, dependencies are those of pyproject's lower bounds, each `>=` read as `==`.
	sed -n '/^dependencies/,/^]/s/.*"\([a-z_-]*\).*>=\(.*\)".*/\1==\2/p' pyproject.toml > $(VENV)/lowest
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[$(EXTRA)]' \
	  $(if $(LOWEST),--constraint $(VENV)/lowest)
	touch $@

clean:
	rm -rf .venv .venv-* runs
