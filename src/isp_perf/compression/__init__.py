"""Responses smaller, requests opened safely, nothing corrupted: compression for any ASGI 3 application.

No framework is imported, and no codec before the first use. ``isp_perf.compression.starlette`` has the response class
for Starlette and FastAPI.
"""

from isp_perf._core.negotiation import Plan, negotiate
from isp_perf.compression._config import DEFAULT_TYPES, Breach, Budget, Options, Streaming, VariantCache
from isp_perf.compression._dictionary import (
    Dictionaries,
    Dictionary,
    DictionaryGain,
    measure_dictionary,
    train_dictionary,
)
from isp_perf.compression._functions import Encoded, compress_for, no_compression
from isp_perf.compression._middleware import CompressionMiddleware
from isp_perf.compression._request import RequestDecompressionMiddleware
from isp_perf.compression._stats import CompressionStats

__all__ = [
    "DEFAULT_TYPES",
    "Breach",
    "Budget",
    "CompressionMiddleware",
    "CompressionStats",
    "Dictionaries",
    "Dictionary",
    "DictionaryGain",
    "Encoded",
    "Options",
    "Plan",
    "RequestDecompressionMiddleware",
    "Streaming",
    "VariantCache",
    "compress_for",
    "measure_dictionary",
    "negotiate",
    "no_compression",
    "train_dictionary",
]
