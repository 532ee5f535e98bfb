# Two commands: `make book` runs the study and renders the book, `make test` runs the tests. Each sets up what it needs.
PROFILE ?= demo
DATA ?= phantom
SUBSETS ?=
CORES ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?= python3
PY := .venv/bin/python
# the owner is make itself: killed, it takes the study along
STUDY = PCAMLIB_OWNER=$$PPID exec $(PY) -m pcamlib.workflow $(1) --profile '$(PROFILE)' --data '$(DATA)' --cores $(CORES) $(if $(SUBSETS),--subsets $(SUBSETS))

.PHONY: book study test torture bench lab clean

book: .venv/ready
	@$(call STUDY,book)

study: .venv/ready
	@$(call STUDY,study)

test: .venv/ready
	@$(PY) -m pytest

torture: .venv/ready
	@$(PY) -m pytest -m torture

bench: .venv/ready
	@for b in benchmarks/bench_*.py; do $(PY) $$b || exit 1; done

lab: .venv/ready
	@$(PY) -m jupyterlab notebooks

.venv/ready: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON); install Python 3.11 or 3.12, or set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { echo "missing: Python 3.11 or 3.12 ($(PYTHON) is another); set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: Python's venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv (a minute or two, about 6 GB with PyTorch)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[book,test,bench]' || { echo "missing: packages could not be installed, see pip's message above" >&2; exit 1; }
	@touch $@

clean:
	rm -rf _build book/executed
