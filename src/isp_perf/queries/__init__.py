"""The right SQL in few statements, and proof of it: preloading for SQLAlchemy 2.0 and 2.1, sync and async."""

from isp_perf.queries._into import preload_into
from isp_perf.queries._lint import PreloadWarning
from isp_perf.queries._plan import preload

__all__ = ["PreloadWarning", "preload", "preload_into"]
