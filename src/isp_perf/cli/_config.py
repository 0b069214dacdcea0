"""``isp-perf config show``: the settings as the service would see them, and every mistake at once."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

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
    if arguments.json:
        print(json.dumps({"settings": settings.as_dict()}, indent=2))
        return 0
    values, defaults = dict(_flat(settings.as_dict())), dict(_flat(Settings().as_dict()))
    names, texts = max(map(len, values)), max(map(len, values.values()))
    for name, text in values.items():
        note = "default" if text == defaults[name] else ""
        print(f"{name:<{names}}  {text:<{texts}}  {note}".rstrip())
    return 0


def _flat(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting as text, those of a part under the name of the part."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(cast("Mapping[str, Any]", value), f"{within}{name}.")
        else:
            yield f"{within}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == []:
        return "none"
    return ", ".join(cast("list[str]", value)) if isinstance(value, list) else str(value)
