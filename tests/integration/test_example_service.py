"""The support service as a user starts it: real uvicorn, several workers, with isp_perf off and on."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from isp_perf.cli._service import Service, example_folder, free_port, run_python


class Client:
    """The service over HTTP, one connection per request."""

    def __init__(self, service):
        self.port = service.port

    def call(self, method, path, value=None):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, None if value is None else json.dumps(value))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(body) if body.startswith((b"{", b"[")) else body.decode()

    def get(self, path):
        status, body = self.call("GET", path)
        assert status == 200, body
        return body


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {"ISP_PERF_EXAMPLE_DIR": str(tmp_path_factory.mktemp("support"))}


@pytest.fixture(scope="module", params=["off", "on"])
def client(request, settings):
    extra = {"ISP_PERF_OFF": "1"} if request.param == "off" else {}
    with Service({**settings, **extra}, port=free_port(), workers=2) as service:
        yield Client(service)


def test_the_folder_stays_small():
    """The example is at most 400 lines of Python."""
    lines = sum(len(path.read_text().splitlines()) for path in example_folder().rglob("*.py"))
    assert 0 < lines <= 400


def test_an_inbox_page_has_customers_agents_and_last_messages(client):
    """A page holds 20 conversations of one agent, latest first, each with customer, agent and three messages."""
    conversations = client.get("/agents/3/conversations/1")["conversations"]
    assert len(conversations) == 20
    assert {entry["agent"]["id"] for entry in conversations} == {3}
    assert [entry["last_at"] for entry in conversations] == sorted((e["last_at"] for e in conversations), reverse=True)
    for entry in conversations:
        assert entry["customer"]["phone"].startswith("+5511")
        assert len(entry["messages"]) == 3
    second = client.get("/agents/3/conversations/2")["conversations"]
    assert not {entry["id"] for entry in conversations} & {entry["id"] for entry in second}


def test_a_profile_names_the_customer_and_all_conversations(client):
    """A customer's profile lists every conversation, and an unknown customer is a 404."""
    profile = client.get("/customers/12")
    assert profile["id"] == 12
    assert profile["messages"] >= 10 * len(profile["conversations"]) > 0
    assert client.call("GET", "/customers/999999")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "value", "status"),
    [
        ("POST", "/webhook/whatsapp", {"phone": "+550000"}, 422),
        ("POST", "/webhook/whatsapp", {"phone": "+550000", "text": 7}, 422),
        ("POST", "/webhook/whatsapp", ["phone", "text"], 422),
        ("POST", "/webhook/whatsapp", {"phone": "+550000", "text": "Olá"}, 404),
        ("POST", "/conversations/99999999999999999999/messages", {"text": "Olá"}, 404),
        ("PUT", "/gateway", {"fault": "on fire"}, 422),
        ("GET", "/agents/x/conversations/1", None, 404),
        ("GET", "/customers/99999999999999999999", None, 404),
    ],
)
def test_bad_requests_are_refused_with_a_reason(client, method, path, value, status):
    """What cannot be right is answered with 4xx, never with 500."""
    assert client.call(method, path, value)[0] == status


def test_what_a_customer_writes_is_in_the_inbox(client):
    """A message of the webhook is the first of its conversation at once, in the worker that took it or another."""
    profile = client.get("/customers/77")
    status, written = client.call("POST", "/webhook/whatsapp", {"phone": profile["phone"], "text": "Voltou a cair!"})
    assert status == 201
    assert written["conversation"] == profile["conversations"][0]["id"]
    assert written["message"]["text"] == "Voltou a cair!"


def test_a_failing_gateway_loses_no_message(client):
    """A message the gateway does not take is kept and marked, and the next one goes out again."""
    client.call("PUT", "/gateway", {"fault": "down"})
    status, kept = client.call("POST", "/conversations/42/messages", {"text": "Estamos verificando."})
    client.call("PUT", "/gateway", {"fault": "none"})
    assert (status, kept["delivered"]) == (202, False)
    status, sent = client.call("POST", "/conversations/42/messages", {"text": "Tudo certo agora."})
    assert (status, sent["delivered"]) == (201, True)
    assert sent["message"]["id"] > kept["message"]["id"]


def test_the_dashboard_counts_everything(client):
    """The dashboard has the seed's keys over all conversations."""
    stats = client.get("/performance/dashboard")["dashboard_stats"]
    assert stats["total_conversations"] == 5_000
    assert 0 < stats["active_conversations"] < 5_000
    assert stats["messages_today"] >= 0
    assert isinstance(stats["cache_hit"], bool)


def test_both_colours_answer_alike(settings):
    """With isp_perf on, every page is the same as with it off."""
    run_python(["seeding.py"], settings)
    paths = [f"/agents/{agent}/conversations/{page}" for agent in (1, 2) for page in (1, 2)]
    paths += [f"/customers/{customer}" for customer in (1, 2, 1200)]
    answers = []
    for extra in ({"ISP_PERF_OFF": "1"}, {}):
        with Service({**settings, **extra}, port=free_port()) as service:
            client = Client(service)
            answers.append([client.get(path) for path in paths for _ in range(2)])
    assert answers[0] == answers[1]


def test_a_write_is_seen_by_the_next_read(settings):
    """With isp_perf on, inbox and profile show a message as soon as its write is answered."""
    with Service(settings, port=free_port()) as service:
        client = Client(service)
        for number in range(5):
            first = client.get("/agents/5/conversations/1")["conversations"][3]
            before = client.get(f"/customers/{first['customer']['id']}")["messages"]
            client.call("POST", f"/conversations/{first['id']}/messages", {"text": f"mensagem {number}"})
            inbox = client.get("/agents/5/conversations/1")["conversations"]
            assert inbox[0]["id"] == first["id"]
            assert inbox[0]["messages"][0]["text"] == f"mensagem {number}"
            assert client.get(f"/customers/{first['customer']['id']}")["messages"] == before + 1
        assert client.get("/cache/stats")["cache_stats"]["hits"] > 0


def test_repeated_reads_send_no_query(settings):
    """With isp_perf on, a page that was read before costs no statement."""
    with Service(settings, port=free_port()) as service:
        client = Client(service)
        client.get("/agents/6/conversations/3")
        before = client.get("/health")["queries"]
        for _ in range(10):
            client.get("/agents/6/conversations/3")
        assert client.get("/health")["queries"] == before


def test_redis_is_the_second_level(settings, redis_url):
    """A second process finds in Redis what the first one has loaded."""
    shared = {**settings, "REDIS_URL": redis_url}
    with Service(shared, port=free_port()) as service:
        page = Client(service).get("/agents/7/conversations/4")
    with Service(shared, port=free_port()) as service:
        client = Client(service)
        before = client.get("/health")["queries"]
        assert client.get("/agents/7/conversations/4") == page
        assert client.get("/health")["queries"] == before


async def test_postgres_serves_the_same_pages(settings, postgres_url, tmp_path):
    """With DATABASE_URL the same data is in PostgreSQL, in a schema of its own."""
    import asyncpg

    extra = {"DATABASE_URL": postgres_url, "ISP_PERF_EXAMPLE_DIR": str(tmp_path), "ISP_PERF_OFF": "1"}
    with Service({**settings, "ISP_PERF_OFF": "1"}, port=free_port()) as service:
        expected = Client(service).get("/agents/9/conversations/2")
    with Service(extra, port=free_port()) as service:
        client = Client(service)
        assert client.get("/agents/9/conversations/2") == expected
        assert client.call("POST", "/conversations/8/messages", {"text": "Olá"})[0] == 201
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    tables = await connection.fetch("SELECT schemaname FROM pg_tables WHERE tablename = 'conversa'")
    await connection.close()
    assert [row["schemaname"] for row in tables] == ["suporte"]


def test_many_first_starts_load_once(tmp_path):
    """Processes that start at the same moment load the data once, and all of them succeed."""
    settings = {"ISP_PERF_EXAMPLE_DIR": str(tmp_path / "new")}
    code = "import asyncio, seeding; asyncio.run(seeding.load())"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run_python(["-c", code], settings), range(3)))
    count = "import sqlite3, models; print(sqlite3.connect(models.FOLDER / 'support.db').execute({!r}).fetchone()[0])"
    assert run_python(["-c", count.format("SELECT count(*) FROM mensagem")], settings).strip() == "50000"
    assert run_python(["-c", count.format("SELECT count(DISTINCT telefone) FROM cliente")], settings).strip() == "1200"


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    """A data folder below a file names setting, value, rule and fix, and no worker hangs."""
    (tmp_path / "file").write_text("not a folder")
    settings = {"ISP_PERF_EXAMPLE_DIR": str(tmp_path / "file" / "data")}
    with pytest.raises(OSError, match=r"ISP_PERF_EXAMPLE_DIR.*must be a folder.*name a folder"):
        Service(settings, port=free_port(), workers=2)


def test_it_starts_as_the_documentation_says(tmp_path):
    """`cd examples/support && python -m uvicorn main:app` finds its modules without any further setting."""
    environ = {**os.environ, "ISP_PERF_EXAMPLE_DIR": str(tmp_path), "ISP_PERF_OFF": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import main; print(main.app.__class__.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=example_folder(), env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert not list(Path(tmp_path).iterdir())
