# make demo   install into a virtual environment, then train and sample two networks: runs/demo/
# make test   install with development tools, then lint, check types and run the tests
# make docs   install what the pages need, then build them: docs/_build/html/index.html

PYTHON ?= python3
VENV ?= .venv
DEMO ?=

.PHONY: demo test docs clean

demo: $(VENV)/installed
	$(VENV)/bin/python -m tools.demo $(DEMO)

test: $(VENV)/dev-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -n 2 --dist loadfile

docs: $(VENV)/docs-installed
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "arlm needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e .
	touch $@

$(VENV)/dev-installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/docs-installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) runs docs/_build
