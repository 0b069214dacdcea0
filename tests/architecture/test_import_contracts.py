"""The import contracts hold, and each of them bites: a graph with one import too many breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from house.contracts import contracts, is_kept, with_import
from house.imports import import_graph
from house.sources import PACKAGE, ROOT

BREAKERS = [
    ("layers", "isp_perf.errors", "isp_perf._core"),
    ("layers", "isp_perf._core.freshness", "isp_perf._runtime"),
    ("layers", "isp_perf._runtime.clock", "isp_perf.cache"),
    ("layers", "isp_perf.cache._async", "isp_perf.redis"),
    ("layers", "isp_perf.redis._pool", "isp_perf.breaker._config"),
    ("layers", "isp_perf.breaker._async", "isp_perf.cache"),
    ("layers", "isp_perf.compression._middleware", "isp_perf.cache"),
    ("layers", "isp_perf.queries._cached", "isp_perf.cache"),
    ("layers", "isp_perf.cache._stats", "isp_perf.metrics"),
    ("layers", "isp_perf.queries", "isp_perf.metrics.prometheus"),
    ("layers", "isp_perf.metrics", "isp_perf.ops"),
    ("layers", "isp_perf.settings", "isp_perf.toolkit"),
    ("layers", "isp_perf.testing", "isp_perf.ops"),
    ("layers", "isp_perf.toolkit", "isp_perf.cli"),
    ("layers", "isp_perf.attic", "isp_perf.errors"),
    *(
        ("pure-core", importer, imported)
        for importer, imported in [
            ("isp_perf._core.freshness", "asyncio"),
            ("isp_perf._core.keys", "threading"),
            ("isp_perf._core", "time"),
            ("isp_perf._core.freshness", "datetime"),
            ("isp_perf.errors", "datetime"),
            ("isp_perf.errors", "socket"),
            ("isp_perf.typing", "ssl"),
            ("isp_perf._core.backoff", "random"),
            ("isp_perf._core.frames", "logging"),
        ]
    ),
    ("room-of-redis", "isp_perf.cache._async", "redis"),
    ("room-of-redis", "isp_perf._core.frames", "hiredis"),
    ("room-of-redis", "isp_perf.cli", "redis"),
    ("room-of-sqlalchemy", "isp_perf.cache", "sqlalchemy"),
    ("room-of-codings", "isp_perf.compression._middleware", "brotli"),
    ("room-of-codings", "isp_perf.cache._codec", "backports"),
    ("room-of-codings", "isp_perf.compression", "zstandard"),
    ("room-of-codings", "isp_perf.compression._variants", "isal"),
    ("room-of-codings", "isp_perf.compression._variants", "zlib_ng"),
    ("room-of-codings", "isp_perf.ops", "compression"),
    ("room-of-msgspec", "isp_perf.cache._async", "msgspec"),
    ("room-of-cachetools", "isp_perf.breaker", "cachetools"),
    ("room-of-prometheus", "isp_perf.metrics", "prometheus_client"),
    ("room-of-prometheus", "isp_perf.cache._stats", "prometheus_client"),
    ("room-of-opentelemetry", "isp_perf.metrics.prometheus", "opentelemetry"),
    ("no-framework", "isp_perf.compression._middleware", "starlette"),
    ("no-framework", "isp_perf.ops", "fastapi"),
]

ALLOWED = [
    ("pure-core", "isp_perf._core.field_text", "datetime"),
    ("pure-core", "isp_perf._core.canonical", "datetime"),
    ("pure-core", "isp_perf._core.ranges", "datetime"),
    ("room-of-redis", "isp_perf.redis._pool", "redis"),
    ("room-of-sqlalchemy", "isp_perf.queries", "sqlalchemy"),
    ("room-of-codings", "isp_perf.compression._codecs", "brotli"),
    ("room-of-msgspec", "isp_perf.cache._codec", "msgspec"),
    ("room-of-cachetools", "isp_perf.cache._local", "cachetools"),
    ("room-of-prometheus", "isp_perf.metrics.prometheus", "prometheus_client"),
    ("room-of-opentelemetry", "isp_perf.metrics.opentelemetry", "opentelemetry"),
    ("no-framework", "isp_perf.compression.starlette", "starlette"),
    ("layers", "isp_perf.toolkit", "isp_perf.cache"),
    ("layers", "isp_perf.metrics", "isp_perf.cache._stats"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return import_graph()


@pytest.fixture(scope="module")
def empty_house() -> grimp.ImportGraph:
    """A package that has only the two rooms which every other one stands on."""
    graph = grimp.ImportGraph()
    for module in ("isp_perf", "isp_perf._core", "isp_perf.errors", "isp_perf.typing"):
        graph.add_module(module)
    return graph


@pytest.mark.parametrize("contract", sorted(contracts()))
def test_the_package_keeps_the_contract(contract, graph):
    """The package as it stands keeps every import contract."""
    assert is_kept(contract, graph), "lint-imports names the imports that break it"


@pytest.mark.parametrize(("contract", "importer", "imported"), BREAKERS)
def test_one_import_too_many_breaks_the_contract(contract, importer, imported, empty_house):
    """An import across a border is found, whether or not its room existed before."""
    assert is_kept(contract, empty_house)
    assert not is_kept(contract, with_import(empty_house, importer, imported))


@pytest.mark.parametrize(("contract", "importer", "imported"), ALLOWED)
def test_an_import_within_the_rules_keeps_the_contract(contract, importer, imported, empty_house):
    """What the house allows is not reported."""
    assert is_kept(contract, with_import(empty_house, importer, imported))


def test_every_contract_is_broken_by_a_test():
    """No contract is without an import that breaks it."""
    assert {contract for contract, _, _ in BREAKERS} == set(contracts())


def test_the_linter_itself_finds_an_import_hidden_in_a_function(tmp_path):
    """The command of the gate fails on a copy of the package in which a function of the core imports a clock."""
    shutil.copytree(PACKAGE, tmp_path / "isp_perf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    core = tmp_path / "isp_perf" / "_core" / "__init__.py"
    core.write_text(core.read_text() + "\n\ndef peek():\n    import time\n\n    return time.time()\n")
    run = _lint_imports(tmp_path)
    assert run.returncode == 1
    assert "_core, errors and typing decide without clock" in run.stdout
    assert "isp_perf._core -> time" in run.stdout


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
