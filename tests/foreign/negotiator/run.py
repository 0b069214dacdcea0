"""Compare our negotiation with the npm package ``negotiator`` on generated headers.

    python tests/foreign/negotiator/run.py [--headers 5000] [--seed 1] [--write tests/data/compression/negotiator.json]

Installs the package into a temporary folder (npm is needed). ``--write`` stores headers and answers, of which the
default test run reads a bounded slice. One difference is agreed: to us ``*`` admits identity, but never prefers it to a
coding that the header names.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from isp_perf.compression import negotiate

NAMES = ("br", "zstd", "gzip", "deflate", "identity", "*", "compress", "GZIP", "x-foo")
WEIGHTS = ("", "", ";q=1", ";q=0", ";q=0.5", "; q=0.8", ";q=0.301", ";q=0.000", ";Q=0.2")
HERE = Path(__file__).parent


def generated(count, seed):
    """Return well-formed headers; each coding at most once, since packages differ on repetitions."""
    pick = random.Random(seed)
    headers = []
    for _ in range(count):
        names = pick.sample(NAMES[:7] + NAMES[8:], pick.randint(1, 5))
        headers.append(", ".join(name + pick.choice(WEIGHTS[:8]) for name in names))
    return headers


def comparable(header):
    """Say whether both must agree: a wildcard beside unnamed identity is the agreed difference."""
    return "identity" in header or "*" not in header


def ours(header):
    """Return our answer in negotiator's words."""
    plan = negotiate(header.encode())
    return plan.coding or ("identity" if plan.identity_ok else None)


def answers_of(headers):
    """Ask the package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, "negotiator@1"], check=True)
        script = Path(folder) / "answer.cjs"
        script.write_text((HERE / "answer.cjs").read_text())
        run = subprocess.run(["node", script], input=json.dumps(headers), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def main():
    """Compare, print the differences, and fail if there is one that was not agreed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--headers", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write")
    arguments = parser.parse_args()
    headers = generated(arguments.headers, arguments.seed)
    pairs = list(zip(headers, answers_of(headers), strict=True))
    if arguments.write:
        Path(arguments.write).write_text(json.dumps(pairs, indent=0) + "\n")
    wrong = [(header, theirs, ours(header)) for header, theirs in pairs if theirs != ours(header)]
    bad = [row for row in wrong if comparable(row[0])]
    report = [f"{len(pairs)} headers, {len(wrong)} differ, {len(bad)} of them not by agreement"]
    sys.stdout.write("\n".join([*report, *map(str, (bad or wrong)[:20])]) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
