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
    "dictionary": Entry("isp_perf.cli._dictionary", "train a compression dictionary (RFC 9842) from sample answers"),
    "rules": Entry("isp_perf.cli._rules", "print or write the Prometheus alert rules and dashboards that are shipped"),
    "config": Entry("isp_perf.cli._config", "show the settings of the environment, secrets masked"),
}
"""By name, in the order of the help. A further command is one more line here and one more module."""
