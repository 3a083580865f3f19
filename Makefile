# make demo   the demo extraction, end to end        make ui    Dagster's UI on 127.0.0.1:3000
# make browse   the features in a web browser, on 127.0.0.1:3080
# make test   all tests but those of the UI          make lint  lint, format, imports and types
# make test-fast    those that take less than half a second: under 2 minutes on two cores
# make test SEED=random   random tests with a new seed, which the last line names; SEED=N repeats it
# make mutations    puts faults into a copy of the package, and says which test notices each
# make test-ui      the real UI in headless Chromium; screenshots in build/screenshots
# make screenshots  the same, and the pictures in docs/images renewed
# make docs         writes the pages of docs/ that follow from the code
# make readers      installs what the tests read exports with
# make published    renews the list of published SAEs from the installed SAELens
# make install      what a checkout can use: UI, PostgreSQL, data sets of the hub, S3, Kubernetes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One stamp a layer: each target installs what it needs, and a second call installs nothing.
DEMO := $(VENV)/.installed-demo
ALL_EXTRAS := $(VENV)/.installed
TOOLS := $(VENV)/.installed-tools
TESTS := $(VENV)/.installed-tests
UI_TESTS := $(VENV)/.installed-ui-tests
READERS := $(VENV)/readers/.installed

SEEDED := $(if $(SEED),--seed $(SEED))

PICTURES := backfill browser-compare browser-feature browser-feature-dark browser-feature-phone browser-features checks chunk-plots examples graph launch report

.PHONY: demo test test-fast mutations test-ui screenshots docs notebook published readers ui browse lint install clean-venv

demo: $(DEMO)
	$(BIN)/extraction-assets run demo
	@echo "The UI with the history of these runs: make ui, then http://127.0.0.1:3000"

# The tests start about a hundred processes: where Python is kept from storing bytecode, each would compile the package.
test test-fast mutations: export PYTHONDONTWRITEBYTECODE :=

# One worker more than two cores have: some tests wait for a daemon. A fourth takes as long, and each starts PostgreSQL.
test: $(TESTS) $(READERS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(SEEDED)

test-fast: $(TESTS)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(SEEDED)

mutations: $(TESTS)
	$(BIN)/python -m extraction_assets_tests.mutations

test-ui: $(UI_TESTS)
	$(BIN)/python -m pytest --ui extraction_assets_tests/ui

screenshots: test-ui
	cp $(PICTURES:%=build/screenshots/%.png) docs/images/

published: $(TESTS)
	$(BIN)/python -m extraction_assets.engine.saes.published.renew

readers: $(READERS)

docs: $(DEMO)
	$(BIN)/python docs/generate.py

notebook: $(DEMO)  # writes what its cells show into docs/notebook.ipynb
	$(BIN)/python docs/execute_notebook.py

ui: $(DEMO)
	$(BIN)/extraction-assets ui --workspace workspace.yaml

browse: $(DEMO)
	$(BIN)/extraction-assets browse

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

install: $(ALL_EXTRAS)

# $(call pip_install,EXTRAS,WHAT)
define pip_install
@echo "installing $(2) into $(VENV)"
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' || { \
  echo "Installing failed: pip's message above says which package. A network or a package mirror is needed once."; exit 1; }
@touch $@
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is missing or older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml constraints.txt | $(BIN)/python
	$(call pip_install,ui,the package and Dagster's UI (a few minutes the first time))

$(ALL_EXTRAS): $(DEMO)
	$(call pip_install,ui$(COMMA)postgres$(COMMA)datasets$(COMMA)s3$(COMMA)kubernetes,PostgreSQL$(COMMA) data sets of the hub$(COMMA) S3 and Kubernetes)

$(TOOLS): $(DEMO)
	$(call pip_install,dev,linters and pytest)

# sae-lens (about 400 MB on disk) is what the tests of the SAE readers compare with; nothing else needs it. Ray (250 MB)
# is what runs may be launched on; only a cluster needs it beside the tests.
$(TESTS): $(ALL_EXTRAS) $(TOOLS)
	$(call pip_install,oracle$(COMMA)ray,sae-lens and Ray for the tests)

# What exports are written for reads them in the tests. Its pins fit neither each other nor the project's: it has a
# virtual environment of its own, which finds what it depends on in the other one.
$(READERS): requirements-readers.txt $(TESTS)
	@echo "installing the readers of exports into $(VENV)/readers"
	@$(BIN)/python -m venv $(VENV)/readers
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(VENV)/readers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/of_the_project.pth
	@{ $(VENV)/readers/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps -r $< && touch $@; } || \
	  echo "The readers of exports are not installed: pip's message above says why. Tests that need them are skipped."

$(UI_TESTS): $(TOOLS)
	$(call pip_install,ui-test,selenium and axe-core)

COMMA := ,

clean-venv:
	rm -rf $(VENV)
