"""``isp-perf dictionary``: trains a dictionary for RFC 9842 from answers of the service, and says what it is worth.

A share of the samples is held back from the training and coded afterwards, beside brotli and plain zstd: figures of
bodies that a dictionary was trained from would flatter it. The dictionary that was measured is the one that is written.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from isp_perf.compression import DictionaryGain, measure_dictionary, train_dictionary
from isp_perf.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_LINES = (".ndjson", ".jsonl")
_SUFFIXES = (".json", *_LINES)
_MIN_SAMPLES = 10
_EVERY = 5  # one sample of five is held back
_MIN_BYTES, _MAX_BYTES, _DEFAULT_BYTES = 256, 1 << 20, 16 << 10
_PERCENT = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "samples",
        nargs="+",
        type=Path,
        metavar="SAMPLES",
        help="a file with one answer, an .ndjson or .jsonl file with one per line, or a folder of such files",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write it")
    parser.add_argument(
        "--size",
        type=_bytes,
        default=_DEFAULT_BYTES,
        metavar="BYTES",
        help=f"bytes it may have (default {_DEFAULT_BYTES})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and _MIN_BYTES <= int(text) <= _MAX_BYTES):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {_MIN_BYTES} to {_MAX_BYTES}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Train, measure, write, print; return the exit code.

    Raises:
        ConfigurationError: too few samples, or samples with too little in common.
        OSError: a file cannot be read or written.
    """
    samples = [sample for path in arguments.samples for sample in _samples(path)]
    if len(samples) < _MIN_SAMPLES:
        rule = f"at least {_MIN_SAMPLES} answers; files of a folder must end in {', '.join(_SUFFIXES)}"
        raise ConfigurationError("SAMPLES", f"{len(samples)} found", rule, "a hundred or more are a good start")
    held_back = samples[_EVERY - 1 :: _EVERY]
    training = [sample for index, sample in enumerate(samples) if index % _EVERY != _EVERY - 1]
    content = train_dictionary(training, max_size=arguments.size)
    gain = measure_dictionary(content, held_back)
    _write(arguments.output, content)
    report = _as_json if arguments.json else _as_lines
    print(report(arguments.output, content, len(training), gain=gain))
    return 0


def _samples(path: Path) -> Iterator[bytes]:
    """Yield the answers of a file, or of every file below a folder, in an order that is always the same."""
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.suffix in _SUFFIXES and inner.is_file():
                yield from _samples(inner)
        return
    content = path.read_bytes()
    bodies = content.splitlines() if path.suffix in _LINES else [content]
    yield from (body for body in bodies if body.strip())


def _write(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: a service that starts meanwhile never reads half of it."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _as_json(path: Path, content: bytes, trained_from: int, *, gain: DictionaryGain) -> str:
    sizes = {"plain": gain.plain, "brotli": gain.brotli, "zstd": gain.zstd, "dcz": gain.dcz}
    held_back = {"bodies": gain.bodies, "bytes": sizes, "saved_ratio": round(gain.saved_ratio, 4)}
    return json.dumps(
        {"file": str(path), "bytes": len(content), "trained_from": trained_from, "held_back": held_back}, indent=2
    )


def _as_lines(path: Path, content: bytes, trained_from: int, *, gain: DictionaryGain) -> str:
    row = _row(gain.plain)
    lines = [
        f"{path}: {len(content)} bytes, trained from {trained_from} answers",
        f"measured on {gain.bodies} others:",
        row("uncoded", gain.plain),
        row("brotli", gain.brotli),
        row("zstd", gain.zstd),
        row("with the dictionary (dcz)", gain.dcz),
        f'use: Dictionaries(trained=(Dictionary(Path("{path}").read_bytes(), match="/api/*"),))',
    ]
    return "\n".join(line for line in lines if line)


def _row(plain: int) -> Callable[[str, int | None], str]:
    def row(name: str, size: int | None) -> str:
        if size is None:
            return ""
        return f"  {name:26} {size:>12} bytes {_PERCENT * (1 - size / plain):6.1f} % saved"

    return row
