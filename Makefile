# Every target sets itself up: a virtual environment of the project's own, made once and reused.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO ?= demo
# WEIGHTS=imagenet, random, or a state-dict file: of the demo's EfficientNet-Lite0 (default: ImageNet's, installed)

# what is installed: the very files whose hashes are in the lock, or with LOCK=no what the registry has by now
LOCK ?= requirements/dev.lock
LOCKED := import platform, sys; sys.exit(not ((3, 10) <= sys.version_info < (3, 14) \
  and (sys.platform, platform.machine()) == ("linux", "x86_64")))

# processes that share the tests out
WORKERS ?= 2
PYTEST := $(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# where a report goes
REPORT ?= report

.PHONY: demo test test-all lint docs report gpu-report reliability bench sbom licences lock clean

demo: $(VENV)/.ready
	$(PY) -m train.demo --out $(DEMO) $(if $(WEIGHTS),--weights $(WEIGHTS))

# each part's main behaviour, in minutes
test: $(VENV)/.ready
	$(PYTEST) -m 'not slow'

# also the long ones: every encoder at its full size, whole programs and their processes
test-all: $(VENV)/.ready
	$(PYTEST) --durations=10

# the paper's Table 6 on this machine's CPU, with all that it can be compared with
report: $(VENV)/.ready
	$(PY) -m runtime.report --baselines --precision bf16 --precision int8 --profile --output $(REPORT)

# the same on a GPU with TensorRT: what needs a device is tested, then our graphs are compiled and measured
gpu-report: $(VENV)/.ready
	@$(PY) -c 'import tensorrt, pycuda.driver' 2>/dev/null || $(PY) -m pip install --quiet --editable '.[tensorrt]'
	$(PY) -m pytest -m gpu
	$(PY) -m runtime.report --plans auto --forms --baselines --precision fp16 --precision int8 --profile --output $(REPORT)

# attacks the commands as they are run and prints one table (docs/reliability.md): hours, or minutes with FORM=--short
reliability: $(VENV)/.ready
	$(PY) -m tests.reliability $(FORM)

# what the code beside the network costs, here and in the checkout AGAINST, in turn; ENGINE=FILE for the cases with one
bench: $(VENV)/.ready
	$(PY) -m tests.bench --against $(AGAINST) $(if $(ENGINE),--engine $(ENGINE))

# README, docs/ and the docstrings as a site; a link that leads nowhere ends it
docs: $(VENV)/.ready
	$(PY) -m mkdocs build --quiet --strict

lint: $(VENV)/.ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# what this environment consists of, with versions and licences, in CycloneDX's format
sbom: $(VENV)/.ready
	@mkdir -p build
	$(VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(PY)

# docs/licences.md's table anew
licences: $(VENV)/.ready
	$(PY) -m tests.support.licences

# the newest versions that fit pyproject.toml, for every Python and with the hashes of their files
lock: $(VENV)/.ready
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile $(COMPILE) pyproject.toml --extra dev --extra rtx --output-file requirements/dev.lock
	echo pip | $(VENV)/bin/uv pip compile $(COMPILE) - --output-file requirements/pip.lock

COMPILE := --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --upgrade $(if $(CONSTRAINT),--constraint $(CONSTRAINT))

$(VENV)/.ready: pyproject.toml requirements/dev.lock requirements/pip.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed; install one, then: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing; install it: sudo apt install python3-venv"; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@if [ '$(LOCK)' != no ] && $(PY) -c '$(LOCKED)'; then \
	  echo "installing what $(LOCK) names (make LOCK=no takes the newest instead)"; \
	  $(PY) -m pip install --quiet --require-hashes --requirement requirements/pip.lock && \
	  $(PY) -m pip install --quiet --require-hashes --requirement $(LOCK) && \
	  $(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	else \
	  echo "installing the newest versions: the lock is for x86_64 Linux with Python 3.10 to 3.13"; \
	  $(PY) -m pip install --quiet --upgrade pip && $(PY) -m pip install --quiet --editable '.[dev,rtx]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
