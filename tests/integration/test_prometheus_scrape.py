"""A real Prometheus scrapes a real server, and promtool finds nothing wrong with what it is given.

``prometheus`` and ``promtool`` come from ``PATH``, or from the folder named by ``PROMETHEUS_BIN``.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time

import httpx
import pytest

from isp_perf.metrics import MetricRegistry, MetricsApp, app
from isp_perf.metrics._render import Format

SERVICE = textwrap.dedent("""
    from isp_perf.metrics import MetricsMiddleware, app as metrics_app, counter

    JOBS = counter("jobs", "Jobs.", ["text"])
    METRICS = metrics_app(naming=["micrometer", "resilience4j"])

    async def service(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/job":
            JOBS.labels('a "b" \\\\ \\n \\ud800 ü').inc()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})
        else:
            await METRICS(scope, receive, send)

    app = MetricsMiddleware(service)
""")


def program(name):
    """Return the path of a program of Prometheus, or skip."""
    folder = os.environ.get("PROMETHEUS_BIN")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    return found or pytest.skip(f"no {name} on PATH or in PROMETHEUS_BIN")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(ready, seconds=30):
    """Return the first answer of ``ready`` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := ready():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    return pytest.fail("it did not become ready in time")


@pytest.fixture
def started(tmp_path):
    """A function that starts a program in a folder of its own; all of them end with the test."""
    running = []

    def start(*command):
        log = (tmp_path / f"log-{len(running)}").open("w")
        running.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log))
        log.close()

    yield start
    for process in reversed(running):
        process.terminate()
        process.wait(20)


def test_a_real_prometheus_scrapes_two_workers(tmp_path, started):
    """Its target is up, and its query of our counter is the client's count, whatever stands in the label."""
    prometheus = program("prometheus")
    (tmp_path / "scraped_service.py").write_text(SERVICE)
    service, own = free_port(), free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: isp, static_configs: [{{targets: ['127.0.0.1:{service}']}}]}}]\n"
    )
    options = ("--port", str(service), "--workers", "2", "--log-level", "warning")
    started(sys.executable, "-m", "uvicorn", "scraped_service:app", *options)
    wait(lambda: httpx.get(f"http://127.0.0.1:{service}/job").text == "done")
    for _ in range(9):
        httpx.get(f"http://127.0.0.1:{service}/job")
    started(
        prometheus,
        "--config.file=prometheus.yml",
        f"--web.listen-address=127.0.0.1:{own}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    )

    def query(text):
        answer = httpx.get(f"http://127.0.0.1:{own}/api/v1/query", params={"query": text})
        return [
            (row["metric"], float(row["value"][1])) for row in json.loads(answer.text).get("data", {}).get("result", ())
        ]

    ((labels, value),) = wait(lambda: query("jobs_total"))
    assert labels["text"] == 'a "b" \\ \n \N{REPLACEMENT CHARACTER} ü'
    assert value == 10
    assert query("up")[0][1] == 1
    assert query('isp_http_requests_total{route="/job"} or isp_http_requests_total{status="200"}')
    assert query("histogram_quantile(0.99, isp_http_request_duration_seconds_bucket)")
    assert query("isp_workers")[0][1] == 2


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
