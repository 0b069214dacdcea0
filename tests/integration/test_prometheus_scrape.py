"""A real Prometheus scrapes a real server, and promtool finds nothing wrong with what it is given.

``prometheus`` and ``promtool`` come from ``PATH``, or from the folder named by ``PROMETHEUS_BIN``.
"""

import json
import os
import shutil
import subprocess
import textwrap
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest

from isp_perf.metrics import MetricRegistry, MetricsApp, app
from isp_perf.metrics._formats import Format
from services import Service, eventually, free_port

SERVICE = textwrap.dedent("""
    from isp_perf.metrics import MetricsMiddleware, app as metrics_app, counter, histogram

    JOBS = counter("jobs", "Jobs.", ["text"])
    TOOK = histogram("took_seconds", "Took.")
    METRICS = metrics_app(naming=["micrometer", "resilience4j"])

    async def service(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/job":
            JOBS.labels('a "b" \\\\ \\n \\ud800 ü').inc()
            TOOK.observe(0.1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})
        else:
            await METRICS(scope, receive, send)

    app = MetricsMiddleware(service)
""")
JOBS_DONE = 10


def program(name):
    """Return the path of a program of Prometheus, or skip."""
    folder = os.environ.get("PROMETHEUS_BIN")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    return found or pytest.skip(f"no {name} on PATH or in PROMETHEUS_BIN")


class Prometheus:
    """A running Prometheus that scrapes one service."""

    def __init__(self, url):
        self.url = url

    def query(self, text):
        """Return the labels of each answer with its value, as soon as there is one."""
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(address, timeout=20) as answer:
                    found = json.loads(answer.read())["data"]["result"]
            except OSError:  # it is not up yet
                found = []
            if found:
                return [(row["metric"], float(row["value"][1])) for row in found]
            time.sleep(0.1)
        return pytest.fail(f"nothing for {text}")

    def value(self, text):
        [(_, value)] = self.query(text)
        return value


@contextmanager
def scraping(folder, service, *options):
    """Run a Prometheus that scrapes ``service`` each second."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: isp, static_configs: [{{targets: ['127.0.0.1:{service.port}']}}]}}]\n"
    )
    places = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}")
    with (folder / "log").open("w") as log:
        command = [program("prometheus"), "--config.file=prometheus.yml", *places, *options]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    program("prometheus")
    running = Service(tmp_path_factory.mktemp("scraped"), SERVICE, ready="/")
    for _ in range(JOBS_DONE):
        assert running.text("/job") == "done"
    yield running
    running.stop()


def test_a_real_prometheus_scrapes_two_workers(tmp_path, service):
    """Its target is up, and its query of our counter is the client's count, whatever stands in the label."""
    with scraping(tmp_path, service) as prometheus:
        eventually(lambda: prometheus.value("jobs_total"), JOBS_DONE)
        ((labels, _),) = prometheus.query("jobs_total")
        assert labels["text"] == 'a "b" \\ \n \N{REPLACEMENT CHARACTER} ü'
        eventually(lambda: prometheus.value("up"), 1)
        assert prometheus.query('isp_http_requests_total{status="200"}')
        assert prometheus.query("histogram_quantile(0.99, isp_http_request_duration_seconds_bucket)")
        eventually(lambda: prometheus.value("isp_workers"), 2)


def test_a_real_prometheus_takes_native_histograms(tmp_path, service):
    """Where it keeps native histograms it asks for protobuf, and has the totals and quantiles of all workers."""
    with scraping(tmp_path, service, "--enable-feature=native-histograms") as prometheus:
        eventually(lambda: prometheus.value("histogram_count(took_seconds)"), JOBS_DONE)
        assert prometheus.value("histogram_sum(took_seconds)") == pytest.approx(0.1 * JOBS_DONE)
        assert prometheus.value("histogram_quantile(0.5, took_seconds)") == pytest.approx(0.1, rel=0.086)
        assert prometheus.value("jobs_total") == JOBS_DONE
        assert prometheus.query("histogram_quantile(0.99, sum(isp_http_request_duration_seconds))")


def test_promtool_finds_nothing_wrong():
    """``promtool check metrics`` accepts every family of the toolkit: names, help texts, units and suffixes."""
    promtool = program("promtool")
    text = app().body(Format(), "worker")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_promtool_reads_every_label_text():
    """Label texts of any kind are read by Prometheus's own parser."""
    promtool = program("promtool")
    own = MetricRegistry()
    jobs = own.counter("jobs", "Jobs.", ["text"])
    for text in ("", '"', "\\", "\n", "\ud800", "é", "\x00", "a" * 1000, "{}=,#"):
        jobs.labels(text).inc()
    given = MetricsApp(own).body(Format(), "worker")
    done = subprocess.run([promtool, "check", "metrics"], input=given, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (0, "")
