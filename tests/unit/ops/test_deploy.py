"""The files under examples/deploy agree with the package and with one another."""

import re
from pathlib import Path

import pytest

from isp_perf.redis import RedisSettings

DEPLOY = Path(__file__).parents[3] / "examples/deploy"
COMPOSE = (DEPLOY / "compose.yml").read_text("utf-8")
KUBERNETES = (DEPLOY / "kubernetes.yml").read_text("utf-8")


@pytest.mark.parametrize("text", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])
def test_the_cluster_is_one_that_the_pool_understands(text):
    """REDIS_CLUSTER_NODES names three nodes, in the form that the settings read."""
    nodes = re.search(r"REDIS_CLUSTER_NODES: (\S+)", text)[1]
    target = RedisSettings.from_env({"REDIS_CLUSTER_NODES": nodes}).target
    assert target.kind == "cluster"
    assert len(target.addresses) == 3


def test_the_probes_are_endpoints_that_exist():
    """Kubernetes and Docker ask for paths that the monitoring answers."""
    from isp_perf.ops import PATHS

    asked = set(re.findall(r"path: (/\S+?)[,}]", KUBERNETES)) | {"/health/ready"}
    assert asked <= set(PATHS) | {"/metrics"}
    assert "/health/ready" in (DEPLOY / "Dockerfile").read_text("utf-8")


def test_four_workers_serve_the_example():
    """The image starts the example service with four workers as an unprivileged user."""
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert '"--workers", "4"' in dockerfile
    assert re.search(r"(?m)^USER support$", dockerfile)


def test_no_password_is_written_down():
    """Secrets come from the environment or a secret, never from the files."""
    for line in (COMPOSE + KUBERNETES).splitlines():
        if "PASSWORD" in line and not line.lstrip().startswith("#"):
            assert "${POSTGRES_PASSWORD:?" in line
