"""Sphinx configuration of the documentation: `make docs` builds it into `docs/_build/html`."""

import logging
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from atlas_ray import __version__  # noqa: E402

project = "atlas_ray"
author = "The atlas_ray authors"
copyright = f"2026, {author}"  # noqa: A001
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

smartquotes = False
"""Two hyphens begin a flag."""

html_theme = "furo"
html_static_path = ["_static"]
html_title = f"atlas_ray {__version__}"
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
default_role = "code"
"""Docstrings write names between single backticks."""

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False

linkcheck_timeout = 10
linkcheck_retries = 2

# A chapter lists its pages by patterns, of which some have no page yet.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "didn't match" not in str(record.msg))


def setup(app: Sphinx) -> None:
    """Write the reference and the notebooks before pages are looked for."""
    if Path(app.srcdir) == HERE:
        from docs import generate, notebooks

        generate.write(HERE / "reference")
        notebooks.write(HERE)
