# Memory Attention: the book and its library. `make` lists the targets.
#   PYTHON=python3.12     another Python than python3
#   OUT=FOLDER            where .venv, scratch files and pages go, for a checkout that is read-only
#   PIP="OPTION ..."      options for pip, such as the index of PyTorch's CPU build
PYTHON ?= python3
OUT ?= .
PIP ?=
RUN := "$(OUT)/.venv/bin/python"
BUILD := $(RUN) tools/build.py --work "$(OUT)/.build" --out "$(OUT)/_build/html"
# Nothing of the person's own settings may change a test; tools/surroundings.py does the rest.
unexport PYTEST_ADDOPTS PYTEST_PLUGINS PYTHONHOME PYTHONPATH PYTHONSTARTUP PIP
export OMP_NUM_THREADS ?= 1
# Python reads the path of an editable install in the locale's letters, whatever its UTF-8 mode.
export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
export RUFF_CACHE_DIR := $(OUT)/.build/ruff
export MYPY_CACHE_DIR := $(OUT)/.build/mypy
export COVERAGE_FILE := $(OUT)/.build/coverage
export HYPOTHESIS_STORAGE_DIRECTORY := $(OUT)/.build/hypothesis
export MEMLIB_PAGES := $(OUT)/_build/html
.DEFAULT_GOAL := help
.PHONY: help environment book lab test fast extras pages zip notebooks numbers serve tidy lint \
	reproduce status bench gpu twice links address lock lowest release clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

environment:
	@$(PYTHON) tools/environment.py --out "$(OUT)" -- $(PIP)

book: environment  ## execute the notebooks that changed and build the pages into _build/html
	@$(BUILD)

lab: environment  ## open the notebooks in JupyterLab
	JUPYTER_PATH= JUPYTER_PREFER_ENV_PATH=1 "$(OUT)/.venv/bin/jupyter-lab" book/intro.ipynb

test: lint  ## ruff, mypy, all tests with coverage, the doctests and every notebook
	$(RUN) -m pytest --ignore=tests/pages -n 2 --dist worksteal --cov --cov-report=term
	$(BUILD) run

fast: lint  ## ruff, mypy, and the tests and doctests that take less than five seconds each
	$(RUN) -m pytest -m "not slow" --ignore=tests/pages -n 2 --dist worksteal

extras: environment  ## the tests that need transformers or a server, on the wheel
	$(RUN) tools/extras.py --out "$(OUT)" -- $(PIP)

pages: book  ## every built page in headless Chromium: light and dark, wide and narrow
	$(RUN) -m pytest tests/pages -n 2 --dist worksteal

zip: book  ## the book as one archive that is read offline: unpack it and open START.html
	@$(RUN) tools/archive.py --pages "$(OUT)/_build/html" --out "$(OUT)/_build"

notebooks: environment  ## every notebook in JupyterLab in a browser, and alone in an empty folder
	NIGHTLY=1 $(RUN) -m pytest tests/pages/test_lab.py tests/book/test_alone.py

numbers: environment  ## every public function at hostile scales for twenty minutes, drawn anew
	NUMBERS_SEED=$${NUMBERS_SEED:-$$$$} NUMBERS_MINUTES=$${NUMBERS_MINUTES:-20} \
		$(RUN) -m pytest tests/accuracy/test_accuracy.py

serve: book  ## look at the book on http://localhost:8000
	$(RUN) -m http.server --bind localhost --directory "$(OUT)/_build/html" 8000

tidy: environment  ## bring notebooks that Jupyter saved back to the form in which they are stored
	$(RUN) tools/tidy.py

lint: environment  ## ruff, mypy, and biome and TypeScript for the page's engine
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) tools/scripts.py --work "$(OUT)/.build/js"

reproduce: environment  ## make reproduce NAME=...: one published claim again; without NAME: all claims
	@$(RUN) -m experiments reproduce $(NAME)

status: book  ## write what the built pages cost and weigh into results/status.json
	$(RUN) tools/status.py --work "$(OUT)/.build" --out "$(OUT)/_build/html"

bench: environment  ## timings beside what a user would pick instead
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) $(RUN) -m benchmarks

gpu:  ## memlib on a GPU, tested and timed in eight minutes; without one, what it would run
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) $(PYTHON) tools/gpu.py

twice: environment  ## two clean builds in two folders, compared byte for byte
	$(RUN) tools/twice.py

links: book  ## ask for every outside link (needs the network)
	"$(OUT)/.venv/bin/jupyter-book" build "$(OUT)/.build/src" --path-output "$(OUT)/.build/links" \
		--builder linkcheck

address: environment  ## make address URL=https://...: write the repository's address everywhere
	$(RUN) tools/address.py $(URL)

lock:  ## renew requirements.txt with the newest versions that pyproject.toml allows
	$(PYTHON) tools/lock.py $(PIP)

lowest:  ## the fast tests and two notebooks with the lowest versions that pyproject.toml allows
	$(PYTHON) tools/lowest.py -- $(PIP)

release: environment  ## wheel and source archive in dist/, tried from an index on this machine
	$(RUN) tools/release.py

clean:  ## remove everything that was made, the environment apart
	rm -rf "$(OUT)/.build" "$(OUT)/_build" dist
