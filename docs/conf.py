"""How the pages are built: MyST Markdown, no network, every warning an error (``nox -s docs``)."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "isp_perf"
author = _PROJECT["authors"][0]["name"]
copyright = f"2026, {author}"
release = _PROJECT["version"]
version = release

extensions = ["myst_parser"]
exclude_patterns = ["_build", "README.md"]
nitpicky = True

# Headings down to the third level are link targets, by the same rule as on code hosting sites.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

html_theme = "furo"
html_title = f"isp_perf {release}"
html_copy_source = False
html_show_sphinx = False
