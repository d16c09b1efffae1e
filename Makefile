# make demo   train the PS-SC model on rendered 3D shapes for about ten minutes and show what it learned
# make test   lint and test everything
# make sweep (the CUDA kernels compiled for every card, every barrier taken out in turn)
# make lint, make bench, make sanitize (the native code under AddressSanitizer and UndefinedBehaviorSanitizer)
# Each target sets up its own virtual environment in .venv when there is none.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CPP_SOURCES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
# Fresh memory for every large tensor costs a tenth of the time on a CPU; glibc keeps it instead.
NO_PAGE_FAULTS = MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184

# `make test` proves that one native library serves several versions of PyTorch where this environment exists.
OTHER_TORCH = 2.13.0
OTHER_VENV = .venv-torch-2.13

.PHONY: demo test sweep lint bench sanitize other-torch clean

$(VENV)/.ready: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	# Some tests run against this package; what it needs besides is for its own training.
	$(BIN)/python -m pip install --quiet --no-deps stylegan2-pytorch
	touch $@

demo: $(VENV)/.ready
	$(NO_PAGE_FAULTS) $(BIN)/python examples/demo.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CPP_SOURCES),$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES))

test: lint
	$(BIN)/python -m pytest -m "not sweep" --cov --cov-report=term

sweep: $(VENV)/.ready
	$(BIN)/python -m pytest -m sweep

bench: $(VENV)/.ready
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

sanitize: $(VENV)/.ready
	$(BIN)/python tests/ops/sanitize.py

other-torch: $(OTHER_VENV)/.ready

$(OTHER_VENV)/.ready:
	$(PYTHON) -m venv $(OTHER_VENV)
	$(OTHER_VENV)/bin/python -m pip install --quiet torch==$(OTHER_TORCH) numpy pytest hypothesis click
	touch $@

clean:
	rm -rf $(VENV) $(OTHER_VENV) build dist *.egg-info
