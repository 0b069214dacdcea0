"""The families of compression, read from every ``CompressionStats`` that is alive."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from isp_perf.metrics._snapshot import Column, Readings, Snapshot, Spec
from isp_perf.metrics._sources import Feature

if TYPE_CHECKING:
    from isp_perf.compression import CompressionStats

__all__ = ["COMPRESSION", "DERIVED", "derive"]

_RESPONSES = Spec("isp_compression_responses_total", "counter", "Responses sent in a coding.", ("encoding",))
_SAVED = Spec("isp_compression_saved_bytes_total", "counter", "Bytes that did not have to be sent.", ("encoding",))
_IN = Spec("isp_compression_in_bytes_total", "counter", "Bytes of bodies before coding.")
_OUT = Spec("isp_compression_out_bytes_total", "counter", "Bytes sent for them.")
_SECONDS = Spec("isp_compression_seconds_total", "counter", "Time spent in codecs.")
_SKIPPED = Spec("isp_compression_skipped_total", "counter", "Responses left uncoded, by reason.", ("reason",))
_OFFLOADED = Spec("isp_compression_offloaded_total", "counter", "Codec jobs that ran in threads.")
_DICTIONARY = Spec("isp_compression_dictionary_total", "counter", "Responses coded with a dictionary.")
_STEPS = Spec("isp_compression_level_steps_total", "counter", "Changes of level because of load.")
_VARIANTS = Spec("isp_compression_variants_total", "counter", "Use of the variant cache.", ("result",))
_VARIANT_BYTES = Spec("isp_compression_variant_cache_bytes", "gauge", "Bytes the variant cache holds.")
_RATIO = Spec("isp_compression_size_ratio", "gauge", "Bytes sent over bytes before coding (0-1).")
DERIVED = (_RATIO,)


def _read(stats: "CompressionStats", readings: Readings) -> None:
    for coding, count in list(stats.encoded.items()):
        readings.add(_RESPONSES, count, coding)
        readings.add(_SAVED, max(0, stats.saved.get(coding, 0)), coding)  # a forced coding can grow a body
    for reason, count in list(stats.skipped.items()):
        if count:
            readings.add(_SKIPPED, count, reason)
    readings.add(_IN, stats.bytes_in)
    readings.add(_OUT, stats.bytes_out)
    readings.add(_SECONDS, stats.codec_seconds)
    readings.add(_OFFLOADED, stats.offloaded)
    readings.add(_DICTIONARY, stats.dictionary)
    readings.add(_STEPS, stats.level_steps)
    readings.add(_VARIANTS, stats.cache_hits, "hit")
    readings.add(_VARIANTS, stats.cache_misses, "miss")
    readings.add(_VARIANTS, stats.cache_upgrades, "upgrade")
    readings.add(_VARIANT_BYTES, stats.cache_bytes)


COMPRESSION = Feature(
    "isp_perf.compression._stats",
    "live_stats",
    read=_read,
    specs=(
        _RESPONSES,
        _SAVED,
        _IN,
        _OUT,
        _SECONDS,
        _SKIPPED,
        _OFFLOADED,
        _DICTIONARY,
        _STEPS,
        _VARIANTS,
        _VARIANT_BYTES,
    ),
)


def derive(snapshot: Snapshot) -> Iterable[Column]:
    """Return the size ratio, from the totals over workers."""
    before = snapshot.get(_IN.name).total()
    yield Column(_RATIO, [()], [snapshot.get(_OUT.name).total() / before if before else math.nan])
