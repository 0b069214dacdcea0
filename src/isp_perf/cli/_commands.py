"""Which commands there are, and where: a module is imported when its command is used, not before."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

__all__ = ["COMMANDS", "Command", "Entry"]


class Command(Protocol):
    """What the module of a command holds."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the options of the command."""
        ...

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Run the command and return its exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Args:
        module: full name of its module.
        says: what it does, in one line.
    """

    module: str
    says: str

    def load(self) -> Command:
        """Import the module."""
        return cast("Command", import_module(self.module))


COMMANDS: Final[Mapping[str, Entry]] = {
    "demo": Entry("isp_perf.cli._demo", "run the support service with and without isp_perf and compare"),
    "top": Entry("isp_perf.cli._top", "show the live figures of a running service in the terminal"),
    "doctor": Entry("isp_perf.cli._doctor", "say what to cache, preload, compress and index, with the evidence"),
    "bench": Entry("isp_perf.cli._bench", "load a URL and say how fast it answers, or measure isp_perf itself"),
    "report": Entry("isp_perf.cli._html_report", "write one HTML file with plots of a running service or of a demo"),
    "stats": Entry("isp_perf.cli._stats", "print what the monitoring endpoints of a running service say"),
    "invalidate": Entry("isp_perf.cli._invalidate", "remove keys, tags or patterns from the shared cache"),
    "warm": Entry("isp_perf.cli._warm", "load values into the shared cache before anybody asks"),
    "dictionary": Entry("isp_perf.cli._dictionary", "train a compression dictionary (RFC 9842) from sample answers"),
    "rules": Entry("isp_perf.cli._rules", "print or write the Prometheus alert rules and dashboards that are shipped"),
    "config": Entry("isp_perf.cli._config", "show the settings of the environment, secrets masked"),
}
"""By name, in the order of the help. A further command is one more line here and one more module."""
