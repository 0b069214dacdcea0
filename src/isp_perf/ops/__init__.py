"""The monitoring endpoints: health, totals over all workers as JSON, metrics, the application's own figures."""

import json
from importlib.resources import files
from typing import Any

from isp_perf.errors import ConfigurationError
from isp_perf.ops._app import PATHS, Authorizer, Monitored, OpsApp
from isp_perf.ops._dashboard import DashboardLoader
from isp_perf.ops._health import Check

__all__ = ["PATHS", "Authorizer", "Check", "DashboardLoader", "Monitored", "OpsApp", "schema"]


def schema(path: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what a monitoring endpoint answers.

    Args:
        path: one of ``PATHS`` except ``/metrics``, which is text.

    Raises:
        ConfigurationError: there is no such endpoint, or it answers no JSON.
    """
    name = path.strip("/").replace("/", "-") + ".json"
    place = files("isp_perf.ops").joinpath("schemas", name)
    if path not in PATHS or not place.is_file():
        raise ConfigurationError("path", path, f"one of {PATHS[:-1]}", "give the path of an endpoint")
    found: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return found
