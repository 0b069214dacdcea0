"""The support service as a user starts it: real uvicorn, several workers, with isp_perf off and on."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import pytest

from isp_perf.cli._load import apply, plan
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


PAGES = [f"/agents/{agent}/conversations/{page}" for agent in (1, 2) for page in (1, 2)]
PAGES += [f"/customers/{customer}" for customer in (1, 2, 1200)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the data as it is after the first start, which here was that of three processes at once."""
    folder = tmp_path_factory.mktemp("support") / "new"
    code = "import asyncio, seeding; asyncio.run(seeding.load())"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run_python(["-c", code], {"ISP_PERF_EXAMPLE_DIR": str(folder)}), range(3)))
    return folder


@pytest.fixture(scope="module")
def off(data, tmp_path_factory):
    """The service without isp_perf, two workers, and its pages before anybody wrote."""
    folder = tmp_path_factory.mktemp("off")
    shutil.copy(data / "support.db", folder)
    with Service({"ISP_PERF_EXAMPLE_DIR": str(folder), "ISP_PERF_OFF": "1"}, port=free_port(), workers=2) as service:
        client = Client(service)
        client.pages = [client.get(path) for path in PAGES]
        yield client


@pytest.fixture(scope="module")
def on(data, tmp_path_factory, redis_server):
    """The service with isp_perf and Redis behind it, and its pages, each asked for twice, before anybody wrote."""
    folder = tmp_path_factory.mktemp("on")
    shutil.copy(data / "support.db", folder)
    settings = {"ISP_PERF_EXAMPLE_DIR": str(folder), "REDIS_URL": redis_server.url, "ISP_PERF_NAMESPACE": uuid4().hex}
    with Service(settings, port=free_port()) as service:
        client = Client(service)
        client.settings = settings
        client.pages = [[client.get(path) for path in PAGES] for _ in range(2)][-1]
        yield client


@pytest.fixture(params=["off", "on"])
def client(request):
    """The service in both ways to run it."""
    return request.getfixturevalue(request.param)


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
        ("PUT", "/faults/gateway", {"fault": "on fire"}, 422),
        ("GET", "/agents/x/conversations/1", None, 404),
        ("GET", "/customers/99999999999999999999", None, 404),
    ],
)
def test_bad_requests_are_refused_with_a_reason(client, method, path, value, status):
    """What cannot be right is answered with 4xx, never with 500."""
    assert client.call(method, path, value)[0] == status


def test_what_a_customer_writes_is_in_the_inbox(client):
    """A message of the webhook is the first of its conversation at once."""
    profile = client.get("/customers/77")
    status, written = client.call("POST", "/webhook/whatsapp", {"phone": profile["phone"], "text": "Voltou a cair!"})
    assert status == 201
    assert written["conversation"] == profile["conversations"][0]["id"]
    assert written["message"]["text"] == "Voltou a cair!"
    assert client.get("/customers/77")["messages"] == profile["messages"] + 1


def test_a_failing_gateway_loses_no_message(off):
    """A message the gateway does not take is kept and marked, and the next one goes out again."""
    off.call("PUT", "/faults/gateway", {"fault": "down"})
    status, kept = off.call("POST", "/conversations/42/messages", {"text": "Estamos verificando."})
    off.call("PUT", "/faults/gateway", {"fault": "none"})
    assert (status, kept["delivered"]) == (202, False)
    status, sent = off.call("POST", "/conversations/42/messages", {"text": "Tudo certo agora."})
    assert (status, sent["delivered"]) == (201, True)
    assert sent["message"]["id"] > kept["message"]["id"]


def test_the_dashboard_counts_everything(client):
    """The dashboard has the seed's keys over all conversations."""
    stats = client.get("/performance/dashboard")["dashboard_stats"]
    assert stats["total_conversations"] == 5_000
    assert 0 < stats["active_conversations"] < 5_000
    assert stats["messages_today"] >= 0
    assert isinstance(stats["cache_hit"], bool)


def test_both_ways_answer_alike(off, on):
    """With isp_perf on, every page is the same as with it off, from the database and from the cache."""
    assert off.pages == on.pages


def test_a_write_is_seen_by_the_next_read(on):
    """With isp_perf on, inbox and profile show a message as soon as its write is answered."""
    for number in range(5):
        first = on.get("/agents/5/conversations/1")["conversations"][3]
        before = on.get(f"/customers/{first['customer']['id']}")["messages"]
        on.call("POST", f"/conversations/{first['id']}/messages", {"text": f"mensagem {number}"})
        inbox = on.get("/agents/5/conversations/1")["conversations"]
        assert inbox[0]["id"] == first["id"]
        assert inbox[0]["messages"][0]["text"] == f"mensagem {number}"
        assert on.get(f"/customers/{first['customer']['id']}")["messages"] == before + 1
    assert on.get("/cache/stats")["cache_stats"]["hits"] > 0


def test_repeated_reads_send_no_query(on):
    """With isp_perf on, a page that was read before costs no statement."""
    on.get("/agents/6/conversations/3")
    before = on.get("/queries")["sent"]
    for _ in range(10):
        on.get("/agents/6/conversations/3")
    assert on.get("/queries")["sent"] == before


def test_redis_is_the_second_level(on):
    """A second process finds in Redis what the first one has loaded."""
    page = on.get("/agents/7/conversations/4")
    with Service(on.settings, port=free_port()) as service:
        second = Client(service)
        before = second.get("/queries")["sent"]
        assert second.get("/agents/7/conversations/4") == page
        assert second.get("/queries")["sent"] == before


def test_answers_are_compressed_for_those_who_accept_it(on):
    """With isp_perf on, a page is a tenth of its size for a browser, and as it is for others."""
    sizes = {}
    for accepted in ("identity", "gzip, br"):
        connection = HTTPConnection("127.0.0.1", on.port, timeout=20)
        connection.request("GET", "/agents/8/conversations/1", headers={"Accept-Encoding": accepted})
        answer = connection.getresponse()
        sizes[accepted] = len(answer.read())
        assert answer.getheader("Content-Encoding") == ("br" if "br" in accepted else None)
        connection.close()
    assert sizes["gzip, br"] < sizes["identity"] / 5


def test_after_a_load_with_writes_no_page_is_old(on):
    """When reads and writes have gone on side by side, every cached first page is what the database says."""
    outcome = asyncio.run(apply(plan(200, seed=5), on.port, connections=8))
    assert outcome.failures == 0
    settings = {"ISP_PERF_EXAMPLE_DIR": on.settings["ISP_PERF_EXAMPLE_DIR"], "ISP_PERF_OFF": "1"}
    pages = [f"/agents/{agent}/conversations/1" for agent in range(1, 41)]
    with Service(settings, port=free_port()) as service:
        truth = Client(service)
        old = [path for path in pages if on.get(path) != truth.get(path)]
    assert old == []


def test_a_gateway_that_stays_down_is_left_alone(on):
    """With isp_perf on, the breaker answers for a slow gateway after three failures, and no message is lost."""
    on.call("PUT", "/faults/gateway", {"fault": "down"})
    answers = [on.call("POST", "/conversations/43/messages", {"text": f"tentativa {n}"}) for n in range(5)]
    on.call("PUT", "/faults/gateway", {"fault": "none"})
    answers.append(on.call("POST", "/conversations/43/messages", {"text": "ainda aberto"}))
    assert [status for status, _ in answers] == [202] * 6
    assert len({body["message"]["id"] for _, body in answers}) == 6


async def test_postgres_serves_the_same_pages(off, postgres_url, tmp_path):
    """With DATABASE_URL the same data is in PostgreSQL, in a schema of its own, and can be written to."""
    import asyncpg

    settings = {"DATABASE_URL": postgres_url, "ISP_PERF_EXAMPLE_DIR": str(tmp_path)}
    with Service(settings, port=free_port()) as service:
        client = Client(service)
        assert [client.get(path) for path in PAGES] == off.pages
        assert client.call("POST", "/conversations/8/messages", {"text": "Olá"})[0] == 201
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    tables = await connection.fetch("SELECT schemaname FROM pg_tables WHERE tablename = 'conversa'")
    await connection.close()
    assert [row["schemaname"] for row in tables] == ["suporte"]


def test_many_first_starts_load_once(data):
    """Processes that start at the same moment load the data once, and all of them succeed."""
    with contextlib.closing(sqlite3.connect(data / "support.db")) as database:
        messages, known = database.execute("SELECT count(*), count(DISTINCT id) FROM mensagem").fetchone()
        phones = database.execute("SELECT count(DISTINCT telefone) FROM cliente").fetchone()
    assert (messages, known, *phones) == (50_000, 50_000, 1_200)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    """A data folder below a file names setting, value, rule and fix, and the service ends at once."""
    (tmp_path / "file").write_text("not a folder")
    settings = {"ISP_PERF_EXAMPLE_DIR": str(tmp_path / "file" / "data")}
    with pytest.raises(OSError, match=r"ISP_PERF_EXAMPLE_DIR.*must be a folder.*name a folder"):
        Service(settings, port=free_port())


def test_it_starts_as_the_documentation_says(tmp_path):
    """`cd examples/support && python -m uvicorn main:app` finds its modules without any further setting."""
    environ = {**os.environ, "ISP_PERF_EXAMPLE_DIR": str(tmp_path), "ISP_PERF_OFF": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import main; print(main.app.__class__.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=example_folder(), env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    "path",
    ["/health", "/health/live", "/health/ready", "/cache/stats", "/compression/stats", "/circuit-breakers"],
)
def test_the_monitoring_endpoints_come_with_the_toolkit(on, path):
    """Every endpoint of the toolkit answers with a JSON object, without a line in the service."""
    assert on.get(path)


def test_all_four_circuits_are_there(on):
    """The service guards its gateway, its database, the AI and Redis."""
    assert {"whatsapp_api", "database", "ai_gemini", "redis"} <= on.get("/circuit-breakers")["circuit_breakers"].keys()


def test_a_message_that_is_delivered_twice_is_kept_once(on):
    """The webhook takes a delivery that WhatsApp repeats for the same message."""
    phone = on.get("/customers/88")["phone"]
    answers = []
    for _ in range(2):
        connection = HTTPConnection("127.0.0.1", on.port, timeout=20)
        body = json.dumps({"phone": phone, "text": "Oi?"})
        connection.request("POST", "/webhook/whatsapp", body, {"x-delivery": "wamid.1"})
        answer = connection.getresponse()
        answers.append((answer.status, json.loads(answer.read())))
        connection.close()
    assert [status for status, _ in answers] == [201, 200]
    assert answers[1][1] == {"repeated": True}


def test_without_the_ai_the_agent_writes_alone(client):
    """A suggestion is text while the AI answers, and nothing while it does not."""
    assert client.get("/conversations/90/suggestion")["suggestion"]
    client.call("PUT", "/faults/ai", {"fault": "down"})
    client.call("POST", "/webhook/whatsapp", {"phone": client.get("/customers/90")["phone"], "text": "E agora?"})
    newest = client.get("/customers/90")["conversations"][0]["id"]
    assert client.get(f"/conversations/{newest}/suggestion")["suggestion"] is None
    client.call("PUT", "/faults/ai", {"fault": "none"})


def test_closing_a_conversation_observes_how_long_it_was(on):
    """The last message ends the conversation, and its length is in the seed's histogram."""
    status, body = on.call("POST", "/conversations/91/close", {"text": "Até logo!"})
    assert (status, body["delivered"]) in [(201, True), (202, False)]
    metrics = on.call("GET", "/metrics")[1]
    assert "conversation_duration_seconds_count 1" in metrics
    assert 'messages_total{author="atendente"' in metrics
    assert "message_processing_seconds_count" in metrics
    assert "open_conversations" in metrics
