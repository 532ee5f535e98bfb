# Two commands: `make book` runs the study and renders the book, `make test` runs the tests. Each installs what it needs.
PROFILE ?= demo
DATA ?= phantom
SUBSETS ?=
CORES ?= $(shell nproc 2>/dev/null || echo 2)
EXECUTOR ?= local
PYTHON ?= python3
KILLS ?= 100
# the fast tests, in halves that take as long as each other
FAST = $(PY) -m pytest -m "not torture and not slow"
LOWER = tests/test_package.py tests/test_architecture.py tests/core tests/data tests/metrics
UPPER = tests/results tests/report
SEED ?= 0
PY := .venv/bin/python
# make would expand a $ in a value of its command line and read another folder
$(foreach name,PROFILE DATA SUBSETS CORES EXECUTOR,$(if $(findstring command line,$(origin $(name))),$(if $(findstring $$,$(value $(name))),$(error error: $(name) has a dollar sign, which make would expand: give it in the environment, $(name)='...' make ...))))
# the owner is make itself: killed, it takes the study along
STUDY = PCAMLIB_OWNER=$$PPID exec $(PY) -m pcamlib $(1) --profile "$$PROFILE" --data "$$DATA" --cores "$$CORES" --executor "$$EXECUTOR" $(if $(value SUBSETS),--subsets "$$SUBSETS")
# the shell takes values from the environment, quoted: a name with a quote or a semicolon stays a name
export PROFILE DATA SUBSETS CORES EXECUTOR KILLS SEED

.PHONY: book study test check format torture bench estimate lab clean

book: .venv/ready
	@$(call STUDY,book)

study: .venv/ready
	@$(call STUDY,study)

test: .venv/ready
	@$(PY) -m pytest

# formatting, lint, the floors between packages and the fast tests, on two cores: a minute
check: .venv/ready
	@.venv/bin/ruff format --check --quiet . || { echo "error: some files are not formatted: run make format" >&2; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/lint-imports --no-cache > /dev/null || { .venv/bin/lint-imports --no-cache >&2; exit 1; }
	@$(FAST) $(UPPER) & upper=$$!; $(FAST) $(LOWER); lower=$$?; wait $$upper && exit $$lower

format: .venv/ready
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

# a hundred kills -9 at random moments, five of the whole study, fifty of the book, some 2,800 damaged inputs, SLURM if it is installed
torture: .venv/ready
	@$(PY) tests/kill.py "$$(mktemp -d)" --kills "$$KILLS" --seed "$$SEED"
	@$(PY) -m pytest -m torture

bench: .venv/ready
	@for b in benchmarks/bench_*.py; do $(PY) $$b $(OPTIONS) || exit 1; done

# hours and memory of the whole study on this device, from a few timed steps of every stage
estimate: .venv/ready
	@$(PY) -m pcamlib estimate --profile "$$PROFILE" $(if $(filter-out phantom,$(value DATA)),--data "$$DATA") $(OPTIONS)

# lab/ makes a double click open a text notebook as a notebook
lab: .venv/ready
	@JUPYTER_CONFIG_PATH="$(CURDIR)/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" $(PY) -m jupyterlab notebooks

.venv/ready: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON); install Python 3.11, 3.12 or 3.13, or set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "missing: Python 3.11, 3.12 or 3.13 ($(PYTHON) is another); set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: Python's venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv (a minute or two, about 6 GB with PyTorch)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[weights,book,test,bench,check,cluster]' || { echo "missing: packages could not be installed, see pip's message above" >&2; exit 1; }
	@touch $@

clean:
	rm -rf _build book/executed
