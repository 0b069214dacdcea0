"""``isp-perf rules``: the alert rules for Prometheus and the dashboards for Grafana that come with the package."""

import argparse
import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from isp_perf.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_KINDS = {"rules": (".yml", ".yaml"), "dashboards": (".json",)}  # folder below isp_perf.ops -> endings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the files into this folder, made if needed")
    parser.add_argument("--force", action="store_true", help="with --out: replace files that are there and differ")
    parser.add_argument("--list", action="store_true", help="print the names instead of the rules")
    parser.add_argument("--json", action="store_true", help="print names and sizes (of what was written) as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print or write the files and return the exit code.

    Raises:
        ConfigurationError: a file is there already and differs, and ``--force`` was not given.
        OSError: the folder cannot be written to.
    """
    found = dict(sorted(_shipped()))
    if arguments.out is not None:
        _write(found, arguments.out, replace=arguments.force)
    if arguments.json:
        sizes = [{"name": name, "bytes": len(file.read_bytes())} for name, file in found.items()]
        print(json.dumps({"files": sizes, "written_to": None if arguments.out is None else str(arguments.out)}))
    elif arguments.out is not None:
        print("\n".join(str(arguments.out / name) for name in found))
    elif arguments.list:
        print("\n".join(found))
    else:
        _print_rules(found)
    return 0


def _shipped() -> Iterator[tuple[str, Traversable]]:
    """Yield every file by its name below the folder that is written to."""
    for folder, endings in _KINDS.items():
        place = files("isp_perf.ops").joinpath(folder)
        if place.is_dir():
            yield from ((f"{folder}/{file.name}", file) for file in place.iterdir() if file.name.endswith(endings))


def _print_rules(found: dict[str, Traversable]) -> None:
    """Print the rules only, one YAML document per file: dashboards are for files."""
    for name, file in found.items():
        if name.startswith("rules/"):
            print(f"---\n# {name}\n{file.read_text('utf-8').rstrip()}")


def _write(found: dict[str, Traversable], folder: Path, *, replace: bool) -> None:
    """Write all files or none."""
    for name, file in found.items():
        path = folder / name
        if not replace and path.exists() and path.read_bytes() != file.read_bytes():
            raise ConfigurationError("--out", str(path), "is there already and differs", "give --force to replace it")
    for name, file in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
