# Two commands on a fresh machine (Python 3.11 or later and make): `make demo` and `make test`.
# `make test PYTHON=python3.13` builds and uses an environment of its own, `.venv-3.13`.
PYTHON ?= python3
VENV := .venv$(addprefix -,$(patsubst python%,%,$(filter-out python python3,$(notdir $(PYTHON)))))
BIN := $(VENV)/bin
COUNTRY ?= DEU
PRESET ?= quick
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without bytecode on the disk, each of the processes that tests start would compile resque again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage torture mutants bench studies gpu-bundle pictures lint clean

demo: $(VENV)/installed
	rm -rf demo-run
	$(BIN)/resque demo --out demo-run --country $(COUNTRY) --report report.html

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

coverage: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term-missing:skip-covered

torture: $(VENV)/installed
	$(BIN)/python benchmarks/torture $(TORTURE)

mutants: $(VENV)/installed
	$(BIN)/python benchmarks/mutants.py $(MUTANTS)

# The neighbors come first; rows of those that cannot be installed are left out.
bench: $(VENV)/installed
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

STUDIES := table1 table2 fig1 fig2 fig3 fig4 fig5 beyond forecasts ranking in_run
studies: $(addprefix study-,$(STUDIES))
	$(BIN)/python studies/families.py --out studies/results/families.md
	$(BIN)/python studies/interruptions.py --out studies/results/interruptions.md

study-%: $(VENV)/installed
	$(BIN)/python studies/$*.py --preset $(PRESET)

# For a machine with a GPU and without a network: wheels for its Python, and Fashion-MNIST.
GPU_PYTHON ?= 3.12
GPU_DATA ?= /usr/share/datasets/fashion-mnist
gpu-bundle: $(VENV)/installed
	studies/gpu_bundle.sh $(BIN)/python $(GPU_PYTHON) $(GPU_DATA) .gpu

pictures: $(VENV)/installed demo-run/resque.db
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/shift_pictures.py

demo-run/resque.db:
	$(MAKE) demo

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resque needs Python 3.11 or later; name one with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[energy,metrics,models,data,augment,lora,ray,dev]'
	touch $@

clean:
	rm -rf .venv .venv-* .gpu demo-run report.html .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
