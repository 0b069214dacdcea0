"""``isp-perf config show``: the settings as the service would see them, and every mistake at once."""

import argparse
import json

from isp_perf.settings import Settings, SettingsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=["show"], help="show: print every setting; secrets are masked")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the settings of the environment and return the exit code: 2 if one of them is wrong."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        if not arguments.json:
            raise
        problems = [
            {"setting": one.setting, "value": str(one.value), "rule": one.rule, "fix": one.fix}
            for one in error.problems
        ]
        print(json.dumps({"problems": problems}, indent=2))
        return 2
    values, defaults = settings.as_dict(), Settings().as_dict()
    if arguments.json:
        print(json.dumps({"settings": values}, indent=2))
        return 0
    width = max(map(len, values))
    for name, value in values.items():
        note = "" if value != defaults[name] else "  (default)"
        print(f"{name:<{width}}  {value}{note}")
    return 0
