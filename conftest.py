"""Collects the Python blocks of README and docs as tests (see ``tests/architecture/house/pages.py``)."""

from house.pages import pages

pytest_collect_file = pages().pytest()
