"""The import contracts of ``pyproject.toml``, checked on any graph: the real one, or one with an import too many."""

from copy import deepcopy
from functools import cache

import grimp
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.domain.contract import Contract

from house.imports import PACKAGE_NAME
from house.sources import ROOT

_KINDS = {"forbidden": ForbiddenContract, "layers": LayersContract}


@cache
def contracts() -> dict[str, Contract]:
    """Return the contracts by their ``id``."""
    options = read_configuration(str(ROOT / "pyproject.toml"))
    return {
        entry["id"]: _KINDS[entry["type"]](
            name=entry["name"], session_options=options["session_options"], contract_options=entry
        )
        for entry in options["contracts_options"]
    }


def is_kept(contract_id: str, graph: grimp.ImportGraph) -> bool:
    """Say whether ``graph`` keeps a contract; the graph itself is left as it is."""
    return contracts()[contract_id].check(deepcopy(graph), verbose=False).kept


def with_import(graph: grimp.ImportGraph, importer: str, imported: str) -> grimp.ImportGraph:
    """Return a copy of ``graph`` in which ``importer`` also imports ``imported``; missing modules are added."""
    changed = deepcopy(graph)
    for module in (importer, imported):
        _add_module(changed, module)
    changed.add_import(importer=importer, imported=imported, line_number=1, line_contents=f"import {imported}")
    return changed


def _add_module(graph: grimp.ImportGraph, module: str) -> None:
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if name not in graph.modules:
            graph.add_module(name, is_squashed=parts[0] != PACKAGE_NAME)
