# Memory Attention: the book and its library. `make` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
export OMP_NUM_THREADS ?= 1
.DEFAULT_GOAL := help
.PHONY: help book lab test pages notebooks serve lint bench twice links address lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (PYTHON=...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

book: $(STAMP)  ## execute the notebooks that changed and build the pages into _build/html
	$(BIN)/python tools/build.py

lab: $(STAMP)  ## open the notebooks in JupyterLab
	JUPYTER_PATH= JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter-lab book/intro.ipynb

test: lint  ## ruff, mypy, all tests with coverage, the doctests and every notebook
	$(BIN)/python -m pytest --ignore=tests/pages -n 2 --cov --cov-report=term
	$(BIN)/python tools/build.py run

pages: book  ## every built page in headless Chromium: light and dark, wide and narrow
	$(BIN)/python -m pytest tests/pages -n 2

notebooks: $(STAMP)  ## every notebook in JupyterLab in a browser, and alone in an empty folder
	NIGHTLY=1 $(BIN)/python -m pytest tests/pages/test_lab.py tests/test_alone.py

serve: book  ## look at the book on http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)  ## timings beside what a user would pick instead
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) $(BIN)/python -m benchmarks

twice: $(STAMP)  ## two clean builds in two folders, compared byte for byte
	$(BIN)/python tools/twice.py

links: book  ## ask for every outside link (needs the network)
	cd .build/src && ../../$(BIN)/jupyter-book build . --path-output ../links --builder linkcheck

address: $(STAMP)  ## make address URL=https://...: write the repository's address everywhere
	$(BIN)/python tools/address.py $(URL)

lock:  ## renew requirements.txt with the newest versions that pyproject.toml allows
	rm -rf .build/lock-env && $(PYTHON) -m venv .build/lock-env
	.build/lock-env/bin/python -m pip install --quiet hatchling editables ".[book,experiments,lab,store,test]"
	$(PYTHON) tools/lock.py .build/lock-env/bin/python

clean:  ## remove everything that was made, the environment apart
	rm -rf .build _build dist .mypy_cache .ruff_cache .hypothesis .coverage
