"""Sphinx builds these pages with `make docs`; a warning is an error, and a page loads nothing from the network."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from arlm import __version__ as version  # noqa: E402

# Notebooks are executed by other processes: they import arlm from this folder, what the chapters share from theirs,
# and use one thread each.
OWN = [str(ROOT), str(ROOT / "docs" / "chapters")]
os.environ["PYTHONPATH"] = os.pathsep.join([*OWN, os.environ.get("PYTHONPATH", "")]).strip(":")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Otherwise ipykernel asks the debugger's files for changes, and prints a warning into the page.
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"

project = "arlm"
copyright = "the authors of arlm"
release = version
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "offline",
    "verbs",
    "rooms",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
# A name in backticks in a docstring is code.
default_role = "code"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Cells run in an empty folder; a cell that fails or takes longer than the limit fails the build.
# Results are kept by the content of the cells, so that a second build runs changed pages only.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
# Warnings of libraries, with paths of the machine that built the pages.
nb_output_stderr = "remove"
# The widgets' loader is the one script that myst-nb takes from the network.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Methods that override one of Lightning's or torch's have no docstring of ours.
autodoc_inherit_docstrings = False

html_theme = "furo"
html_title = f"arlm {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
