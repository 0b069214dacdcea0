"""Reads the command line, runs one command and turns every end of it into an exit code.

0: done, nothing found. 1: it did not work, or it found problems; one line on stderr says why. 2: a wrong option or
setting. 130 and 143: interrupted by Ctrl-C or SIGTERM, with everything it had started ended.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from isp_perf import __version__
from isp_perf.cli._arguments import Parser, meant
from isp_perf.cli._commands import COMMANDS
from isp_perf.errors import ConfigurationError, PerfError

_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT
_AS_WRITTEN = argparse.RawDescriptionHelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``None``: the process's own) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name not in COMMANDS:
        _no_command(words)
    command, says = COMMANDS[name].load(), COMMANDS[name].says
    parser = Parser(prog=f"isp-perf {name}", description=f"{says[0].upper()}{says[1:]}.")
    command.add_arguments(parser)
    arguments = parser.parse(words[1:])
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = int(command.run(arguments))
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, 2)
    except BrokenPipeError:  # whoever read our output has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, RuntimeError, PerfError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; everything it had started is ended", _INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _fail(reason: object, code: int) -> int:
    print(f"isp-perf: {reason}", file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave through every ``finally``, as Ctrl-C does."""
    raise SystemExit(_TERMINATED)


def _no_command(words: list[str]) -> None:
    """Answer --help and --version, refuse everything else."""
    listed = "\n".join(f"  {name:<11} {entry.says}" for name, entry in COMMANDS.items())
    parser = Parser(
        prog="isp-perf",
        usage="isp-perf [-h] [--version] COMMAND ...",
        description="Tools of the isp_perf toolkit.",
        epilog=f"commands:\n{listed}\n\nexit codes: 0 done, 1 failed or problems found, 2 wrong option or setting",
        formatter_class=_AS_WRITTEN,
    )
    parser.add_argument("--version", action="version", version=f"isp-perf {__version__}")
    if words and words[0].startswith("-"):
        parser.parse(words[:1])
    if not words:
        parser.error("a command is needed")
    parser.error(f"no command is called {words[0]!r}{meant(words[0], COMMANDS)}")
