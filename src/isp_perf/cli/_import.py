"""What a command line names as ``module:attribute``, imported as a server would import it."""

import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from isp_perf.errors import ConfigurationError

__all__ = ["load_attribute"]


def load_attribute(name: str, folder: Path) -> Any:
    """Return the attribute that ``name`` (``module:attribute``) says, with ``folder`` first on the module path.

    Raises:
        ConfigurationError: no such module or attribute, or the module raises when it is imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and attribute and all(part.isidentifier() for part in module_name.split("."))):
        raise ConfigurationError("MODULE:NAME", name, "written as module:attribute", "write for example main:app")
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
    module = _imported(module_name, name)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise ConfigurationError("MODULE:NAME", name, f"{module_name} has no {attribute}", "check the name") from None


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError("MODULE:NAME", name, f"there is no module {error.name}", "give --app-dir") from error
    except Exception as error:
        kind = type(error).__name__
        raise ConfigurationError("MODULE:NAME", name, f"the import raised {kind}: {error}", "run it by hand") from error
