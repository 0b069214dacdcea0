"""Which route template answered a request: the label that keeps requests countable.

The raw path is never used: one scanner asking for ten thousand made-up paths must not make ten thousand series.
"""

from collections.abc import Mapping
from typing import Any

from isp_perf.metrics._asgi import Scope

__all__ = ["ROUTE_KEY", "UNMATCHED", "route_template"]

ROUTE_KEY = "isp_perf.route"  # an application may put its own template here
UNMATCHED = "__unmatched__"  # no route, or a framework that does not say which


def route_template(scope: Scope) -> str:
    """Return the template of the route that handled ``scope``, such as ``/users/{user_id}``.

    Read after the application has answered, from what its router left in the scope: ``scope["isp_perf.route"]`` if
    somebody set it, else the ``route`` of Starlette and FastAPI, else the ``path_template`` of Litestar. Prefixes of
    mounted applications stand in front, with the values of their own path parameters replaced by names.
    """
    own = scope.get(ROUTE_KEY)
    if own is not None:
        return str(own)
    route = scope.get("route")
    if route is None:
        return str(scope.get("path_template", UNMATCHED))
    path = getattr(route, "path_format", None)
    if path is None:
        path = getattr(route, "path", UNMATCHED)
    if "app_root_path" not in scope:
        return str(path)
    # Of a mount that answered itself (static files) the prefix is already all there is to know.
    return _mount_prefix(scope) + ("" if hasattr(route, "routes") else str(path))


def _mount_prefix(scope: Scope) -> str:
    """Return what the mounts took off the path, as a template."""
    prefix: str = scope.get("root_path", "").removeprefix(scope.get("app_root_path", ""))
    parameters: Mapping[str, Any] = scope.get("path_params", {})
    names = {str(value): name for name, value in parameters.items()}
    segments = [f"{{{names[segment]}}}" if segment in names else segment for segment in prefix.split("/")]
    return "/".join(segments)
