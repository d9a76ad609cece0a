"""The documentation site: Sphinx with MyST and MyST-NB. `make docs` builds it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# `mrknee` in the tutorials' cells is the command of this environment
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# tqdm asks for ipywidgets, which the tutorials do not need
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

from mrknee import __version__  # after the paths

project = "mrknee"
author = "The mrknee authors"
project_copyright = "the mrknee authors; Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "from_code",  # docs/_ext: pages that are generated from the code
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_generated", "_templates"]

# Docstrings: Google style, with `names` in single backticks.
default_role = "literal"
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "inherited-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

# Markdown
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Tutorials are executed in an empty folder, and again only when their cells change: after `make
# clean`, or in a fresh clone, as in CI, all are. The limit is per cell.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

html_theme = "furo"
html_title = "mrknee"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ |In \[\d*\]: "
copybutton_prompt_is_regexp = True
