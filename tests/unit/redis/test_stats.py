"""The records a pool shows."""

from isp_perf.redis import BulkResult, LaneStats, RedisHealth, RedisStats


def test_batches_are_counted_by_size():
    """Each write falls into the smallest bucket that holds it."""
    stats = LaneStats()
    for size in (1, 2, 3, 256, 257, 10_000):
        stats.count_batch(size, 10)
    sizes = stats.as_dict()["batch_sizes"]
    assert [sizes[name] for name in ("<= 1", "<= 2", "<= 4", "<= 256", "> 256")] == [1, 1, 1, 1, 2]
    assert (stats.commands, stats.batches, stats.bytes_out) == (10_519, 6, 60)


def test_totals_run_over_the_lanes():
    """Commands and retries of every lane are added up."""
    stats = RedisStats({"fast": LaneStats(commands=3, retries_read=1), "bulk": LaneStats(commands=4)}, 5, 6)
    assert (stats.commands, stats.retries, stats.in_flight, stats.queued) == (7, 1, 5, 6)
    assert stats.as_dict()["lanes"]["bulk"]["commands"] == 4


def test_health_has_the_seeds_shape():
    """status, ping_time_ms and pool_info with exactly its two keys; ours stand beside them."""
    shape = RedisHealth("healthy", 2.1, 15, 12).as_dict()
    assert shape["status"] == "healthy"
    assert shape["ping_time_ms"] == 2.1
    assert shape["pool_info"] == {"created_connections": 15, "available_connections": 12}


def test_a_bulk_result_shows_no_key():
    """The repr gives numbers only."""
    assert repr(BulkResult(1, {"secret": ValueError()})) == "BulkResult(stored=1, errors=1)"
