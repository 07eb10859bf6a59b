"""How the documentation is built: ``make docs``."""

from pagewalk import __version__

project = "pagewalk"
author = "the pagewalk developers"
copyright = "the pagewalk developers"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"pagewalk {release}"
