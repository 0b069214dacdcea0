"""`isp-perf doctor module:app`: the application is asked itself, and every finding has a measured figure."""

import json
import sys
import textwrap

import pytest

from isp_perf._core.query_findings import Statement
from isp_perf.cli import _probe, main
from isp_perf.cli._doctor import _indexes, _slow
from isp_perf.cli._probe import Probe, pages_of, probe
from isp_perf.queries import IndexAdvice

APPLICATION = """
import asyncio
import json
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

class Base(DeclarativeBase): pass

class Cliente(Base):
    __tablename__ = "cliente"
    id: Mapped[int] = mapped_column(primary_key=True)
    conversas: Mapped[list["Conversa"]] = relationship(back_populates="cliente")

class Conversa(Base):
    __tablename__ = "conversa"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("cliente.id"))
    cliente: Mapped[Cliente] = relationship(back_populates="conversas")

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add_all([Cliente(id=n, conversas=[Conversa()]) for n in range(1, 20)])
    session.commit()

class Route:
    def __init__(self, path, methods=("GET",)):
        self.path, self.methods = path, methods

class App:
    routes = [Route("/list"), Route("/broken"), Route("/good"), Route("/items/{n}"), Route("/post", ("POST",))]
    log = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                self.log.append(kind)
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown":
                    return
        if scope["path"] == "/broken":
            raise ZeroDivisionError("secret")
        body = b"fine"
        if scope["path"] == "/list":
            await asyncio.sleep(0.006)
            with Session(engine) as session:
                listed = [{"cliente": c.cliente.id, "texto": "atendimento"} for c in session.scalars(select(Conversa))]
            body = json.dumps(listed * 5).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

app = App()
number = 3
bare = None
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the application, forgotten afterwards."""
    (tmp_path / "doctored.py").write_text(textwrap.dedent(APPLICATION))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    module = sys.modules.pop("doctored", None)
    if module is not None:
        module.engine.dispose()


def test_an_application_is_asked_and_every_finding_is_measured(folder, capsys):
    """Of three pages one fails and one could be preloaded, cached and compressed; the good one gets no finding."""
    assert main(["doctor", "doctored:app", "--app-dir", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    by_page = {(one["subject"], one["kind"]): one for one in found["findings"]}
    assert set(by_page) == {("/list", "preload"), ("/list", "cache"), ("/list", "compress"), ("/broken", "errors")}
    assert "Conversa.cliente" in by_page["/list", "preload"]["evidence"]
    assert "doctored.py:" in by_page["/list", "preload"]["evidence"]
    assert "preload" in by_page["/list", "preload"]["fix"]
    assert "20 statements" in by_page["/list", "cache"]["evidence"]
    assert "as br" in by_page["/list", "compress"]["evidence"]
    assert "ZeroDivisionError" in by_page["/broken", "errors"]["evidence"]
    assert "secret" not in json.dumps(found)
    assert sys.modules["doctored"].App.log == ["lifespan.startup", "lifespan.shutdown"]


def test_good_pages_are_exit_code_0(folder, capsys):
    """An application without findings is told so."""
    assert main(["doctor", "doctored:app", "--app-dir", str(folder), "--path", "/good"]) == 0
    assert "nothing to improve" in capsys.readouterr().out


def test_the_text_names_kind_evidence_and_fix(folder, capsys):
    """For people each finding is three lines: what, seen, do."""
    assert main(["doctor", "doctored:app", "--app-dir", str(folder), "--path", "/list"]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["preload", "/list"] in lines
    assert sum(line[:1] == ["seen"] for line in lines) == sum(line[:1] == ["do"] for line in lines) == 3


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("doctored", "module:attribute"),
        ("doc tored:app", "module:attribute"),
        ("no_such_module_here:app", "no module"),
        ("doctored:nothing", "has no nothing"),
        ("doctored:number", "ASGI application"),
        ("doctored:Base", "no GET route"),
    ],
)
def test_what_is_no_application_is_exit_code_2(folder, capsys, target, said):
    """Whatever is wrong with the name is one line with a fix."""
    assert main(["doctor", target, "--app-dir", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_a_module_that_raises_is_told(tmp_path, capsys, monkeypatch):
    """An import that fails is exit code 2 with the kind of error, not a traceback."""
    (tmp_path / "raising_module.py").write_text("1 / 0")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    assert main(["doctor", "raising_module:app", "--app-dir", str(tmp_path)]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_application_that_does_not_start_is_exit_code_1(tmp_path, capsys, monkeypatch):
    """A failed startup ends the command with the application's message."""
    (tmp_path / "failing_start.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    monkeypatch.setattr(sys, "path", sys.path.copy())
    assert main(["doctor", "failing_start:app", "--app-dir", str(tmp_path), "--path", "/"]) == 1
    assert "no database" in capsys.readouterr().err


async def silent(scope, receive, send):
    """An application without a lifespan that never answers one page and says little on the others."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/never":
        await receive()
        await receive()
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


async def test_a_page_that_never_answers_is_cut_off(monkeypatch):
    """An application without lifespan and headers is asked too, and a page that hangs counts as 504."""
    monkeypatch.setattr(_probe, "_TIMEOUT", 0.02)
    (never, empty), _ = await probe(silent, ["/never", "/?a=b"])
    assert (never.status, empty.status) == (504, 204)
    assert (empty.body, empty.media, empty.coding, empty.same) == (b"", "", "", True)


async def test_what_cannot_go_on_is_not_a_finding():
    """Running out of memory or stack ends the command instead of being told as a page's fault."""

    async def app(scope, receive, send):
        raise RecursionError

    with pytest.raises(RecursionError):
        await probe(app, ["/"])


def test_pages_are_found_through_wrappers():
    """Routes are found through middleware and wrappers, without those that need a value or describe the API."""

    class Route:
        def __init__(self, path, methods=("GET",)):
            self.path, self.methods = path, methods

    class Inner:
        routes = (Route("/a"), Route("/{b}"), Route("/docs"), Route("/c", None), Route("/a"))

    class Middleware:
        app = Inner()

    class Wrapped:
        _app = Middleware()
        routes = (Route("/top"),)

    assert pages_of(Wrapped()) == ["/top", "/a"]
    assert pages_of(object()) == []
    endless = Middleware()
    endless.app = endless
    assert pages_of(endless) == []


def test_a_slow_statement_wants_an_index():
    """A statement above 20 ms is told with its text, a fast one is not."""
    slow = Probe("/list", slowest=Statement("SELECT *\n  FROM conversa", 2, 0.1, "main.py:3"))
    [found] = _slow(slow)
    assert (found.kind, found.evidence) == ("index", "50.0 ms for: SELECT * FROM conversa")
    assert list(_slow(Probe("/list", slowest=Statement("SELECT 1", 2, 0.001, "")))) == []


def test_an_index_is_named_with_what_its_statements_take():
    """Advice for a statement of a page that takes a millisecond is a finding with its DDL; any other is not."""
    advised = [
        IndexAdvice("CREATE INDEX a ON t (a)", "", ("SELECT slow",), None, None, verified=False),
        IndexAdvice("CREATE INDEX b ON t (b)", "", ("SELECT fast",), None, None, verified=False),
        IndexAdvice("CREATE INDEX c ON t (c)", "", ("SELECT of another program",), None, None, verified=False),
        IndexAdvice("DROP INDEX d", "", (), None, None, verified=False, reason="duplicate"),
    ]
    sent = [Statement("SELECT slow", 3, 0.006, ""), Statement("SELECT fast", 1, 0.0002, "")]
    [found] = _indexes([Probe("/other"), Probe("/list", sent=sent), Probe("/again", sent=sent)], advised)
    assert found.as_dict() == {
        "kind": "index",
        "subject": "/list",
        "evidence": "3 x, 6.00 ms in all: SELECT slow",
        "fix": "CREATE INDEX a ON t (a)",
    }
