"""Totals over workers: exact, never backwards, whatever becomes of a worker and whenever it does."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from isp_perf.metrics import MetricRegistry
from isp_perf.metrics import _archive as archive_module
from isp_perf.metrics._archive import Archive
from isp_perf.metrics._segment import SegmentReader, SegmentWriter
from isp_perf.metrics._workers import WorkerExchange


class Worker:
    """One member of a group inside this process: a registry and its exchange."""

    def __init__(self, folder):
        self.registry = MetricRegistry()
        self.jobs = self.registry.counter("jobs", "Jobs.", ["queue"])
        self.took = self.registry.histogram("took_seconds", "Took.")
        self.depth = self.registry.gauge("depth", "Depth.")
        self.exchange = WorkerExchange(self.registry.local, folder)

    def total(self):
        return sum(self.exchange.gather().get("jobs_total").values)

    def kill(self):
        """Let go of everything without a last word, as kill -9 does."""
        with self.exchange._lock:  # not in the middle of a publication, as its thread lives on in this process
            self.exchange.abandon()


@pytest.fixture
def short_path():
    """Return a folder whose path leaves room for a socket's name, which pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="isp-") as folder:
        yield Path(folder)


@pytest.fixture
def join(short_path):
    """Return a function that adds a worker to one group; all of them leave at the end."""
    workers = []

    def make():
        workers.append(Worker(short_path))
        return workers[-1]

    yield make
    for worker in workers:
        worker.exchange.close()


def test_every_worker_gives_the_same_exact_total(join):
    """After the last count, whichever worker is asked answers the sum of all, without waiting for a second."""
    workers = [join() for _ in range(3)]
    for number, worker in enumerate(workers):
        worker.jobs.labels("a").inc(number + 1)
        worker.jobs.labels(f"own {number}").inc(10)
        worker.took.observe(0.1)
    for worker in workers:
        snapshot = worker.exchange.gather()
        assert snapshot.get("jobs_total").by_key() == {("a",): 6, ("own 0",): 10, ("own 1",): 10, ("own 2",): 10}
        [cells] = snapshot.get("took_seconds").values
        assert (sum(cells[:-1]), cells[-1]) == (3, 300_000_000)
        assert snapshot.get("isp_workers").values == [3]


def test_what_a_dead_worker_published_stays(join):
    """A killed worker's counts stay in the totals, are folded once, and its gauge drops out."""
    one, two = join(), join()
    two.jobs.labels("a").inc(5)
    two.depth.set(7)
    assert one.total() == 5
    two.kill()
    for _ in range(4):
        snapshot = one.exchange.gather()
        assert snapshot.get("jobs_total").values == [5]
        assert snapshot.get("depth").values == [0]
        assert snapshot.get("isp_workers").values == [1]


def test_a_worker_that_leaves_keeps_its_last_count(join):
    """close() publishes what was counted since the last publication, and hands it to the archive."""
    one, two = join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.close()
    assert one.total() == 5
    assert not list(one.exchange._folder.glob(f"{two.exchange._path.stem}*"))


def test_a_total_that_was_shown_survives_the_one_that_showed_it(join):
    """What a worker answered with is on file before it answers, so killing it takes nothing back."""
    one, two = join(), join()
    one.jobs.labels("a").inc(5)
    assert one.total() == 5
    one.kill()
    assert two.total() == 5


def test_a_file_read_before_it_was_folded_is_not_counted_twice(join, monkeypatch):
    """A reader that read a file, and the archive after another process folded that file, counts it once."""
    one, two, three = join(), join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.publish()
    two.kill()
    read_peers = one.exchange._peers

    def folded_in_between(began):
        peers = read_peers(began)
        three.exchange.gather()
        return peers

    monkeypatch.setattr(one.exchange, "_peers", folded_in_between)
    assert one.total() == 5
    assert one.total() == 5


def test_a_file_that_vanishes_between_listing_and_opening_is_in_the_archive(join, monkeypatch):
    """A file that another process folded after it was listed is counted from the archive."""
    one, two, three = join(), join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.publish()
    two.kill()
    ask = one.exchange._ask

    def folded_in_between(paths, began):
        three.exchange.gather()
        ask(paths, began)

    monkeypatch.setattr(one.exchange, "_ask", folded_in_between)
    assert one.total() == 5


def test_a_fold_that_was_cut_short_is_finished_without_adding_twice(join, monkeypatch):
    """A crash between writing the archive and removing the file leaves both; the next fold only removes."""
    one, two = join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.publish()
    two.kill()
    path = two.exchange._path
    kept = path.read_bytes()
    assert one.total() == 5
    path.write_bytes(kept)
    assert one.total() == 5
    assert not path.exists()


def test_epochs_are_forgotten_when_no_reader_can_need_them(tmp_path, monkeypatch):
    """The archive stays small: a minute after a file is gone, its epoch is gone too."""
    archive = Archive(tmp_path, SegmentReader())
    registry = MetricRegistry()
    registry.counter("jobs", "Jobs.").inc()

    def die(number):
        epoch = f"{number:032x}"
        path = tmp_path / f"1-{epoch}.m"
        writer = SegmentWriter(path, epoch)
        writer.publish(registry.collect(), 1)
        writer.close()
        archive.fold([path])

    for number in range(20):
        die(number)
    assert len(archive.read()[0]) == 20
    size = (tmp_path / "archive").stat().st_size
    monkeypatch.setattr(archive_module, "_EPOCHS_KEPT_NS", 0)
    die(20)
    assert (tmp_path / "archive").stat().st_size < size
    assert archive.read()[1].get("jobs_total").values == [21]


@pytest.mark.parametrize("restarts", [100, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_files_are_bounded_after_many_restarts(join, restarts):
    """Workers that came and went by the hundred leave one archive, and the sum of all they counted."""
    one = join()
    most = 0
    for number in range(restarts):
        worker = join()
        worker.jobs.labels("a").inc()
        worker.exchange.publish()
        worker.kill()
        worker.exchange._socket.close()
        if number % 10 == 9:
            assert one.total() == number + 1
            most = max(most, len(list(one.exchange._folder.iterdir())))
    assert one.total() == restarts
    assert most <= 4


def test_exemplars_come_from_whichever_worker_saw_the_newest(join):
    """A scrape of one worker shows the exemplars of all, per cell the newest."""
    one, two = join(), join()
    for worker, trace in ((two, "older"), (one, "newer")):
        took = worker.registry.histogram("took_seconds", "Took.")
        took.observe(0.1, exemplar={"trace_id": trace})
    two.registry.histogram("took_seconds", "Took.").observe(5, exemplar={"trace_id": "slow"})
    for worker in (one, two):
        shown = worker.exchange.gather().exemplars["took_seconds"][()]
        assert sorted(labels["trace_id"] for labels, _, _ in shown.values()) == ["newer", "slow"]


def test_a_stopped_sibling_delays_a_scrape_by_no_more_than_its_patience(join):
    """A sibling that does not answer costs 50 ms; its last figures are used and their age is told."""
    one, two = join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.publish()
    with two.exchange._lock:  # its publisher cannot move
        two.jobs.labels("a").inc(100)
        began = time.monotonic()
        snapshot = one.exchange.gather()
        took = time.monotonic() - began
    assert snapshot.get("jobs_total").values == [5]
    assert 0.04 < took < 0.5
    assert max(snapshot.get("isp_worker_snapshot_age_seconds").values) > 0


def test_scrapes_at_once_agree(join):
    """Many threads that ask at the same time get the exact total each."""
    workers = [join() for _ in range(3)]
    for worker in workers:
        worker.jobs.labels("a").inc(2)
    totals = []
    threads = [threading.Thread(target=lambda w=w: totals.append(w.total())) for w in workers * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [6] * 12


def test_a_cleaned_folder_is_made_again(join):
    """A cleaner of temporary folders costs one publication: the file comes back with everything in it."""
    one, two = join(), join()
    two.jobs.labels("a").inc(5)
    two.exchange.publish()
    for path in list(one.exchange._folder.glob("*.m")):
        path.unlink()
    two.exchange.publish()
    assert one.total() == 5


def test_a_path_too_long_for_a_socket_still_works(tmp_path):
    """Without a socket a worker publishes each second by itself."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    worker = Worker(folder)
    assert worker.exchange._socket is None
    worker.jobs.labels("a").inc()
    assert worker.total() == 1
    worker.exchange.close()


FORKING = """
import os, sys, time
from isp_perf.metrics import counter, registry
jobs = counter("jobs", "Jobs.")
jobs.inc(100)                       # before the fork: the parent's
{before}
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        jobs.inc(number + 1)
        registry.collect()
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
print(sum(registry.collect().get("jobs_total").values))
"""


@pytest.mark.parametrize("before", ["", "registry.collect()", "registry.share()"])
def test_a_fork_takes_no_counts_along(short_path, before):
    """Children forked before, after and while the parent publishes count from zero; nothing is counted twice."""
    program = short_path / "forking.py"
    program.write_text(FORKING.format(before=before))
    environ = {**os.environ, "ISP_PERF_DIR": str(short_path / "group")}
    done = subprocess.run(
        [sys.executable, program], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "106"


def test_an_unwritable_folder_leaves_figures_of_this_process(tmp_path):
    """Where no folder can be had, a worker among siblings labels its figures as its own, and says so once."""
    (tmp_path / "file").write_text("")
    program = textwrap.dedent("""
        import logging, os
        logging.basicConfig()
        from isp_perf.metrics import counter, registry
        counter("jobs", "Jobs.").inc()
        for _ in range(3):
            column = registry.collect().get("jobs_total")
        print(column.spec.labels, column.keys == [(str(os.getpid()),)], column.values)
    """)
    environ = {
        **os.environ,
        "ISP_PERF_DIR": str(tmp_path / "file" / "below"),
        "SERVER_SOFTWARE": "gunicorn/23.0",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "('worker',) True [1]"
    assert done.stderr.count("of this process only") == 1


def test_a_plain_program_cleans_up_behind_itself(tmp_path):
    """The folder of a program that was alone is gone when the program is."""
    program = "from isp_perf.metrics import registry; registry.collect(); print(registry._exchange._folder)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not Path(done.stdout.strip()).exists()


KILLED = """
import sys
from isp_perf.metrics import counter, registry
jobs = counter("jobs", "Jobs.", ["queue"]).labels("a")
registry.collect()
for line in sys.stdin:
    jobs.inc(int(line))
    registry.publish()
    print("ok", flush=True)
"""


def test_totals_never_go_back_over_kills(short_path):
    """Workers killed one after another, and read all the while: the total only grows and ends exact."""
    environ = {**os.environ, "ISP_PERF_DIR": str(short_path)}
    reader = Worker(short_path)
    totals = []
    for _ in range(6):
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3):
            worker.stdin.write("7\n")
            worker.stdin.flush()
            worker.stdout.readline()
            totals.append(reader.total())
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        totals.append(reader.total())
    reader.exchange.close()
    assert totals == sorted(totals)
    assert totals[-1] == 6 * 3 * 7
