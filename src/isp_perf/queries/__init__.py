"""The right SQL in few statements, and proof of it: for SQLAlchemy 2.0 and 2.1, sync and async."""

from isp_perf._core.query_findings import Finding, Statement
from isp_perf.errors import NPlusOneError, QueryBudgetError
from isp_perf.queries._advice import IndexAdvice, suggest_indexes
from isp_perf.queries._bulk import BulkResult, bulk_delete, bulk_insert, bulk_update, bulk_upsert
from isp_perf.queries._cached import cached_query
from isp_perf.queries._count import QueryCount, count_queries, query_budget
from isp_perf.queries._dataloader import DataLoader
from isp_perf.queries._indexes import composite_index
from isp_perf.queries._install import BatchingWarning, Installed, install
from isp_perf.queries._into import preload_into
from isp_perf.queries._lint import PreloadWarning
from isp_perf.queries._listen import Listening, listen
from isp_perf.queries._middleware import QueryBudgetMiddleware
from isp_perf.queries._pages import Page, keyset_page
from isp_perf.queries._plan import preload
from isp_perf.queries._records import read_records
from isp_perf.queries._replicas import ReplicaRouter
from isp_perf.queries._stats import QueryStats
from isp_perf.queries._streams import stream
from isp_perf.queries._triggers import invalidation_ddl
from isp_perf.queries._watch import NPlusOneWarning

__all__ = [
    "BatchingWarning",
    "BulkResult",
    "DataLoader",
    "Finding",
    "IndexAdvice",
    "Installed",
    "Listening",
    "NPlusOneError",
    "NPlusOneWarning",
    "Page",
    "PreloadWarning",
    "QueryBudgetError",
    "QueryBudgetMiddleware",
    "QueryCount",
    "QueryStats",
    "ReplicaRouter",
    "Statement",
    "bulk_delete",
    "bulk_insert",
    "bulk_update",
    "bulk_upsert",
    "cached_query",
    "composite_index",
    "count_queries",
    "install",
    "invalidation_ddl",
    "keyset_page",
    "listen",
    "preload",
    "preload_into",
    "query_budget",
    "read_records",
    "stream",
    "suggest_indexes",
]
