# make demo | test | check | bench | bench-gpu | reference.  Each installs what it needs into .venv first.
PYTHON ?= python3
VENV   ?= .venv
CORE   ?= .venv-core
OUT    ?= demo-out
PIP_FLAGS ?= --quiet --disable-pip-version-check
# On the path: with setuptools' import hook a clone's folder, called steerstats, hides the package from scripts beside it.
EDITABLE = --config-settings editable_mode=compat -e

# One thread a process: the results do not depend on it (see DESIGN), two cores then serve two test workers.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check bench bench-gpu reference example clean

demo: $(VENV)/.build
	$(VENV)/bin/steerstats demo -o $(OUT)

# Each half where its users have it: all tests run, each of them once.
test: $(VENV)/.dev $(CORE)/.core
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not cuda" $(PYTEST_FLAGS) --half build
	$(CORE)/bin/python -m pytest -n 2 --dist worksteal -m "not cuda" $(PYTEST_FLAGS) --half analysis

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks

bench-gpu:
	$(PYTHON) -m benchmarks.bench_gpu
	$(PYTHON) -m benchmarks --table

# Regenerates the committed reference values; needs R with lme4 and clubSandwich.
reference:
	cd tests/reference && for script in *.R; do Rscript --vanilla $$script; done

# Regenerates reports/examples/demo from the bundled model.
example: $(VENV)/.build
	$(VENV)/bin/python -m reports.examples

$(VENV)/.build: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_FLAGS) -c constraints.txt $(EDITABLE) ".[build]"
	touch $@

# steering-vectors declares transformers < 5 and runs with 5; it is the tests' independent oracle, nothing more.
$(VENV)/.dev: $(VENV)/.build
	$(VENV)/bin/pip install $(PIP_FLAGS) -c constraints.txt $(EDITABLE) ".[build,ray,dev]"
	$(VENV)/bin/pip install $(PIP_FLAGS) --no-deps steering-vectors==0.12.2
	touch $@

# The analysis half as its users install it: no extra, no torch.
$(CORE)/.core: pyproject.toml
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/pip install $(PIP_FLAGS) . "pytest>=8" "pytest-xdist>=3.6" "hypothesis>=6.100"
	touch $@

clean:
	rm -rf $(VENV) $(CORE) $(OUT) build *.egg-info
