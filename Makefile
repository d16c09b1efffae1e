# make demo   train the PS-SC model on rendered 3D shapes for about ten minutes and show what it learned
# make test   lint and test everything
# make versions   install, compile and test under every PyTorch and Python that is supported
# make gpu    everything that needs a CUDA card: tests, sanitizers, the short benchmark
# make newest   the tests with the newest version of everything, instead of those in constraints.txt
# make release   build, check, install afresh under the oldest and the newest PyTorch, run the examples there
# make wheel  a wheel in dist/ with compiled kernels, for every Python
# make sweep (the CUDA kernels compiled for every card, every barrier taken out in turn)
# make docs   the documentation site in build/docs, warnings are errors
# make lint, make bench, make sanitize (the native code under AddressSanitizer and UndefinedBehaviorSanitizer)
# Each target sets up its own virtual environment in .venv when there is none.

PYTHON ?= python3
# Tests run with versions that are known to work; CONSTRAINTS= takes the newest of all.
CONSTRAINTS ?= --constraint constraints.txt
VENV ?= .venv
BIN := $(VENV)/bin
CPP_SOURCES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
# Fresh memory for every large tensor costs a tenth of the time on a CPU; glibc keeps it instead.
NO_PAGE_FAULTS = MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184

# What `make wheel` compiles: the CPU's kernels, and CUDA's where there is a CUDA compiler.
comma := ,
PREBUILD ?= cpu$(if $(shell command -v nvcc),$(comma)cuda)
WHEEL_CARDS = 8.0;8.6;8.9;9.0;10.0;12.0+PTX
# PyTorch's own libraries are already in the process that loads ours.
NOT_BUNDLED = --exclude 'libtorch*.so' --exclude 'libc10*.so'

# One process a core and one thread each take half the time of one process with all the threads.
PARALLEL = -n auto --maxprocesses 8 --dist worksteal

# PyTorch versions of `make versions`, such as TORCH="2.10 2.12"; all that are supported if empty.
TORCH ?=

.PHONY: demo test newest versions gpu wheel release sweep docs lint bench sanitize clean

$(VENV)/.ready: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[all,wandb,test,docs]'
	# Some tests run against this package; what it needs besides is for its own training.
	$(BIN)/python -m pip install --quiet --no-deps stylegan2-pytorch
	touch $@

demo: $(VENV)/.ready
	$(NO_PAGE_FAULTS) $(BIN)/python examples/demo.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=examples $(BIN)/mypy --follow-imports=silent examples/0*.py
	$(BIN)/pyright --pythonpath $(BIN)/python examples/0*.py
	$(if $(CPP_SOURCES),$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES))

test: lint
	OMP_NUM_THREADS=1 PYTHONHASHSEED=0 $(BIN)/python -m pytest $(PARALLEL) -m "not sweep" --cov --cov-report=term

newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

sweep: $(VENV)/.ready
	$(BIN)/python -m pytest -m sweep

bench: $(VENV)/.ready
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

sanitize: $(VENV)/.ready
	$(BIN)/python tests/ops/sanitize.py

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

versions: $(VENV)/.ready
	$(BIN)/python tests/versions.py $(TORCH)

# Needs no environment: a machine with a card, PyTorch and pytest is enough.
gpu:
	$(PYTHON) tests/gpu.py

wheel: $(VENV)/.ready
	rm -rf build/wheel dist
	SC_LAYERS_PREBUILD=$(PREBUILD) TORCH_CUDA_ARCH_LIST='$(WHEEL_CARDS)' \
	    $(BIN)/python -m build --no-isolation --outdir build/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair $(NOT_BUNDLED) --wheel-dir dist build/wheel/*.whl

release: wheel
	$(BIN)/python tests/release.py

clean:
	rm -rf $(VENV) .venv-newest .venv-torch-* build dist *.egg-info
