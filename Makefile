# On a fresh machine this needs Python 3.11 or newer with venv, make, and a network to package
# registries; no C compiler. Every step leaves a stamp in .venv, so nothing is installed twice;
# a changed lock builds the environment anew, and nothing of the old one stays behind.

# Python keeps the compiled modules of .venv, or every process would compile them again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
ENGINE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
ARGS   ?=

VENV    := .venv
PYTEST   = $(VENV)/bin/python -m pytest --numprocesses 2 --no-loadscope-reorder
INSTALL := $(PYTHON) requirements/install.py $(VENV)
APART   := triton-interpreter repeng
APART_FULL := $(APART) lm-eval ray router
# Of the tests, those that a GPU could answer otherwise: against transformers in float32, and alone.
EXACT    := $(addprefix tests/integration/test_,exactness.py force.py lens.py prompt_rows.py \
            residual_requests.py score.py)
KERNELS  := $(addprefix tests/,logit_processors service/engine/test_capture.py \
            service/engine/test_measured.py)
ISOLATED := $(addprefix tests/integration/test_,isolation.py text.py vectors.py)

# The types are checked beside the first tests, whose servers wait for one another anyway.
define types_beside
@$(VENV)/bin/mypy & types=$$!; $(1); tests=$$?; \
	wait $$types || { echo "mypy found errors: they are above." >&2; exit 1; }; exit $$tests
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test unit test-full test-stock test-gpu check lint seams bench bench-gpu loadtest faults soak clean browser

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: ARGS (passed on), PYTHON ($(PYTHON)), ENGINE (cpu or gpu; here $(ENGINE))"

serve: $(VENV)/sensefield ## start the server; ARGS='MODEL --port 8001', no model = the embedded one
	$(VENV)/bin/sensefield serve $(ARGS)

test: lint browser $(APART:%=$(VENV)/%/installed) ## all that CI runs: lint, types, tests; ARGS='-k vectors'
	$(call types_beside,$(PYTEST) $(ARGS))

unit: $(VENV)/sensefield $(VENV)/dev $(VENV)/triton-interpreter/installed ## the tests that start no server
	$(PYTEST) --ignore=tests/integration --ignore=tests/faults --ignore=tests/deploy/test_replicas.py $(ARGS)

test-full: lint browser $(APART_FULL:%=$(VENV)/%/installed) ## make test with the long forms of its tests; writes docs/faults
	$(call types_beside,$(PYTEST) --full $(ARGS))

test-stock: $(VENV)/sensefield $(VENV)/dev ## vLLM's own HTTP tests, fetched by name, against Sensefield and stock vLLM
	$(VENV)/bin/python -m loadtests.conformance $(ARGS)

test-gpu: $(VENV)/sensefield $(VENV)/dev ## what control does, on a GPU: eager, with CUDA graphs, in bfloat16
	$(VENV)/bin/python -m pytest $(KERNELS) $(EXACT) $(ISOLATED) $(ARGS)
	SENSEFIELD_TEST_FLAGS="--no-enforce-eager" $(VENV)/bin/python -m pytest $(EXACT) $(ISOLATED) $(ARGS)
	SENSEFIELD_TEST_FLAGS="--no-enforce-eager --dtype bfloat16" $(VENV)/bin/python -m pytest $(ISOLATED) $(ARGS)

check: lint ## lint, formatting, imports and types
	$(VENV)/bin/mypy

lint: $(VENV)/sensefield $(VENV)/dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports

seams: $(VENV)/sensefield ## what is replaced in vLLM, why, and whether the installed one still has it
	@$(VENV)/bin/python -W ignore -m service.engine.seams

bench: $(VENV)/sensefield $(VENV)/dev ## run the benchmarks; ARGS='--help'
	$(VENV)/bin/python -m loadtests.bench $(ARGS)

bench-gpu: $(VENV)/sensefield ## run the benchmarks of a GPU within 8 minutes; ARGS='--models FOLDER'
	$(VENV)/bin/python -m loadtests.gpu_bench $(ARGS)

loadtest: $(VENV)/sensefield $(VENV)/dev ## run the load tests for 2 minutes; SENSEFIELD=URL of a server, ARGS='--help'
	$(VENV)/bin/python -m loadtests.load.run $(if $(SENSEFIELD),--url $(SENSEFIELD)) $(ARGS)

faults: $(VENV)/sensefield $(VENV)/dev $(VENV)/triton-interpreter/installed ## kill, stop and starve servers, two storms; writes docs/faults
	$(VENV)/bin/python -m pytest --full $(ARGS) tests/faults

soak: faults ## the faults, then half an hour of mixed load; writes docs/faults/soak.md
	$(VENV)/bin/python -m loadtests.soak

clean: ## remove the environment, caches and benchmark scratch
	rm -rf $(VENV) .bench .grimp_cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# An engine makes the environment anew: nothing of the old one stays behind.
$(VENV)/engine-cpu: requirements/torch-cpu.txt requirements/cpu.txt requirements/uv.txt
$(VENV)/engine-gpu: requirements/gpu.txt requirements/uv.txt
$(VENV)/engine-%:
	$(INSTALL) $*
	@touch $@

$(VENV)/sensefield: pyproject.toml $(VENV)/engine-$(ENGINE)
	$(INSTALL) project
	@touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/engine-$(ENGINE)
	$(INSTALL) dev
	@touch $@

# In folders of their own: a plain CPU engine must not see Triton, repeng asks for an older numpy,
# lm-eval for packages that have no wheels, and a server needs neither Ray nor a router.
$(APART_FULL:%=$(VENV)/%/installed): $(VENV)/%/installed: requirements/%.txt $(VENV)/engine-$(ENGINE)
	$(INSTALL) $*
	@touch $@

# The tests of the playground drive a real browser, which no Python package brings.
browser:
	@command -v chromium chromium-browser >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium; \
	} || { echo "The playground's tests need Chromium: install the package chromium." >&2; exit 1; }
