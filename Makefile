# make demo   install into a virtual environment, then train and sample two networks: runs/demo/
# make test   install with development tools, then lint, check types and run the tests
# make docs   install what the pages need, build them into docs/_build/html/, and run all of their commands
# make wheel  build the wheel and the source distribution, and try them in an empty folder

PYTHON ?= python3
VENV ?= .venv
DEMO ?=
# pip would compile all modules of all packages, one after the other. This compiles those that a run imports,
# even where the environment says not to; without it every command takes twice the time to start.
COMPILE = env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/python -m arlm fit --help > /dev/null

.PHONY: demo test docs wheel clean

demo: $(VENV)/installed
	$(VENV)/bin/python -m tools.demo $(DEMO)

test: $(VENV)/dev-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -n 2 --dist loadfile

docs: $(VENV)/docs-installed
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
	$(VENV)/bin/python -m tools.docs.commands

wheel: $(VENV)/dev-installed
	$(VENV)/bin/python -m tools.try_package

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "arlm needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e .
	$(COMPILE)
	touch $@

$(VENV)/dev-installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e '.[dev]'
	$(COMPILE)
	touch $@ $(VENV)/installed

$(VENV)/docs-installed: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/pip install --no-compile -e '.[dev,docs]'
	$(COMPILE)
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) runs docs/_build
