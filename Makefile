# make demo   the demo extraction, end to end        make ui    Dagster's UI on 127.0.0.1:3000
# make test   all tests but those of the UI          make lint  lint, format, imports and types
# make test-ui      the real UI in headless Chromium; screenshots in build/screenshots
# make screenshots  the same, and the README's pictures made anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ORACLE := $(VENV)/.oracle

README_PICTURES := backfill checks chunk-plots examples graph launch report

.PHONY: demo test test-ui screenshots ui lint install clean-venv

demo: $(INSTALLED)
	$(BIN)/extraction-assets run demo
	@echo "The UI with the history of these runs: make ui, then http://127.0.0.1:3000"

test: $(INSTALLED) $(ORACLE)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-ui: $(INSTALLED)
	$(BIN)/python -m pytest --ui extraction_assets_tests/ui

screenshots: test-ui
	cp $(README_PICTURES:%=build/screenshots/%.png) docs/images/

ui: $(INSTALLED)
	$(BIN)/extraction-assets ui --workspace workspace.yaml

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is missing or older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing packages into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ui,dev,postgres,ui-test,datasets]' || { \
	  echo "Installing failed: pip's message above says which package. A network or a package mirror is needed once."; exit 1; }
	@touch $@

# sae-lens, which tests of the SAE readers compare with, and nothing else needs: about 400 MB on disk.
$(ORACLE): $(INSTALLED)
	@echo "installing sae-lens for the tests into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[oracle]' || { \
	  echo "Installing failed: pip's message above says which package. A network or a package mirror is needed once."; exit 1; }
	@touch $@

clean-venv:
	rm -rf $(VENV)
