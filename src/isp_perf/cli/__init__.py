"""The ``isp-perf`` command."""

from isp_perf.cli._main import main

__all__ = ["main"]
