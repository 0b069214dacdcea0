"""Reads the command line, runs one command and turns every end of it into an exit code.

0: done. 1: it did not work, and one line on stderr says why. 2: a wrong option or setting. 130 and 143: interrupted
by Ctrl-C or SIGTERM, with everything it had started ended.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from isp_perf import __version__
from isp_perf.cli import _demo, _dictionary
from isp_perf.errors import ConfigurationError

_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``None``: the process's own) and return the exit code."""
    arguments = _parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(arguments.run(arguments))
    except ConfigurationError as error:
        print(f"isp-perf: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"isp-perf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("isp-perf: interrupted; everything it had started is ended", file=sys.stderr)
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave through every ``finally``, as Ctrl-C does."""
    raise SystemExit(_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isp-perf", description="Tools of the isp_perf toolkit.")
    parser.add_argument("--version", action="version", version=f"isp-perf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _demo.add_to(commands)
    _dictionary.add_to(commands)
    return parser
