"""Customer support of an internet provider: customers write over WhatsApp, agents answer. `python -m uvicorn main:app`.

ISP_PERF_OFF=1 leaves out the block "the difference", and with it isp_perf. Settings: ISP_PERF_EXAMPLE_DIR (folder of
the data), DATABASE_URL (PostgreSQL instead of SQLite), REDIS_URL and the others of isp_perf.settings.Settings.
"""

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time
from typing import Any

import seeding
from models import FOLDER, Cliente, Conversa, Mensagem, Session, engine, queries
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import isp_perf
from isp_perf.metrics import CONVERSATION_DURATION, MESSAGE_PROCESSING_TIME, counter, gauge, timed

PERF = os.environ.get("ISP_PERF_OFF", "0") in ("", "0")
PAGE, LAST_MESSAGES = 20, 3
CUSTOMER = {"id": "id", "name": "nome", "phone": "telefone", "plan": "plano"}
EAGER = ()  # what a list loads along with its conversations
OPEN = gauge("open_conversations", "Conversations that are not closed.", merge="max")
MESSAGES = counter("messages", "Messages by who wrote them and whether they were delivered.", ["author", "delivered"])


def pick(row: Any, **names: str) -> dict[str, Any]:
    found = {name: getattr(row, column) for name, column in names.items()}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}


def shown(message: Mensagem) -> dict[str, Any]:
    return pick(message, id="id", text="texto", at="enviada_em", **{"from": "autor"})


async def inbox(agent: int, page: int) -> list[dict[str, Any]]:
    """One page of an agent's conversations; each relationship that is not loaded yet costs one more query."""
    async with Session() as session:
        latest = select(Conversa).where(Conversa.atendente_id == agent).order_by(Conversa.ultima_em.desc())
        found = await session.scalars(latest.options(*EAGER).limit(PAGE).offset((page - 1) * PAGE))
        return [
            pick(conversation, id="id", subject="assunto", status="situacao", last_at="ultima_em")
            | {"customer": pick(await conversation.awaitable_attrs.cliente, **CUSTOMER)}
            | {"agent": pick(await conversation.awaitable_attrs.atendente, id="id", name="nome", team="equipe")}
            | {"messages": [shown(m) for m in (await conversation.awaitable_attrs.mensagens)[:LAST_MESSAGES]]}
            for conversation in found
        ]


async def profile(customer: int) -> dict[str, Any] | None:
    async with Session() as session:
        found = await session.get(Cliente, customer)
        if found is None:
            return None
        own = await found.awaitable_attrs.conversas
        count = select(func.count()).select_from(Mensagem).join(Conversa).where(Conversa.cliente_id == customer)
        facts = pick(found, **CUSTOMER, district="bairro") | {"messages": await session.scalar(count)}
        return facts | {"conversations": [pick(c, id="id", subject="assunto", status="situacao") for c in own]}


async def dashboard() -> dict[str, int]:
    today = datetime.combine(datetime.now(UTC).date(), time.min)
    total, sent = select(func.count()).select_from(Conversa), select(func.count()).select_from(Mensagem)
    active, written = total.where(Conversa.situacao == "aberta"), sent.where(Mensagem.enviada_em >= today)
    figures = {"total_conversations": total, "active_conversations": active, "messages_today": written}
    async with Session() as session:
        found = {name: await session.scalar(figure) or 0 for name, figure in figures.items()}
    OPEN.set(found["active_conversations"])
    return found


async def remote(name: str, seconds: float, what: str) -> None:
    """Stand in for a service elsewhere; a fault that was switched on (PUT /faults/...) holds in all workers at once."""
    switch = FOLDER / f"{name}-fault"
    fault = switch.read_text() if switch.exists() else "none"
    await asyncio.sleep(2.0 if fault == "slow" else seconds)
    if fault == "down":
        raise ConnectionError(f"no answer from {name} to {what}")


async def send_whatsapp_message(phone: str, text: str) -> None:
    await remote("gateway", 0.002, f"{len(text)} characters for {phone[:5]}...")


async def suggest_answer(text: str) -> str:
    await remote("ai", 0.005, f"{len(text)} characters")
    return "O que mostra a luz do modem?" if "?" in text else "Vamos verificar o sinal da sua conexão."


# ---- the difference

if PERF:
    toolkit = isp_perf.Toolkit.from_env()
    toolkit.queries(engine, detect="warn")
    cached, breaker = isp_perf.cached, isp_perf.circuit_breaker
    EAGER = isp_perf.preload(Conversa, "cliente", "atendente", "mensagens", limit=LAST_MESSAGES)
    database = breaker("database", isp_perf.DATABASE_CIRCUIT_CONFIG)
    inbox = cached("inbox:{agent}:{page}", ttl=300, tags=("agent:{agent}",))(database(inbox))
    profile = cached("user_profile:{customer}", ttl=1800)(database(profile))
    send_whatsapp_message = breaker("whatsapp_api", isp_perf.WHATSAPP_CIRCUIT_CONFIG)(send_whatsapp_message)
    suggest_answer = cached("answer:{hash}", ttl=3600)(breaker("ai_gemini", isp_perf.AI_CIRCUIT_CONFIG)(suggest_answer))

    @breaker("redis", isp_perf.REDIS_CIRCUIT_CONFIG.replace(fallback=True))
    async def is_new(delivery: str) -> bool:
        return not toolkit.redis.enabled or await toolkit.redis.set(f"webhook:{delivery}", b"1", ttl=3600, nx=True)

    async def changed(conversation: Conversa) -> None:
        await profile.invalidate(conversation.cliente_id)
        await isp_perf.cache_manager.invalidate_tags(f"agent:{conversation.atendente_id}")


def number(request: Request, name: str) -> int:
    return min(max(request.path_params[name], 1), 2**31 - 1)


async def fields(request: Request, *names: str) -> list[str]:
    try:
        values = [(await request.json())[name] for name in names]
    except (ValueError, KeyError, TypeError):
        values = [None]
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise HTTPException(422, f"send a JSON object with text in {', '.join(names)}")
    return values


async def chosen(session: Any, request: Request) -> Conversa:
    if found := await session.get(Conversa, number(request, "conversation")):
        return found
    raise HTTPException(404, "no such conversation")


async def write(session: Any, conversation: Conversa, message: Mensagem) -> dict[str, Any]:
    conversation.ultima_em = message.enviada_em = datetime.now(UTC).replace(tzinfo=None)
    message.conversa_id = conversation.id
    session.add(message)
    await session.commit()
    MESSAGES.labels(author=message.autor, delivered=str(message.entregue)).inc()
    if PERF:
        await changed(conversation)
    return {"conversation": conversation.id, "delivered": message.entregue, "message": shown(message)}


async def list_conversations(request: Request) -> JSONResponse:
    return JSONResponse({"conversations": await inbox(number(request, "agent"), number(request, "page"))})


async def show_customer(request: Request) -> JSONResponse:
    found = await profile(number(request, "customer"))
    return JSONResponse(found or {"error": "no such customer"}, 200 if found else 404)


@timed(MESSAGE_PROCESSING_TIME)
async def receive(request: Request) -> JSONResponse:
    """The webhook: WhatsApp hands over what a customer wrote, again if we were slow."""
    phone, text = await fields(request, "phone", "text")
    if PERF and not await is_new(request.headers.get("x-delivery", os.urandom(8).hex())):
        return JSONResponse({"repeated": True})
    async with Session() as session:
        customer = await session.scalar(select(Cliente).where(Cliente.telefone == phone))
        if customer is None:
            raise HTTPException(404, "no customer has this phone number")
        conversation = (await customer.awaitable_attrs.conversas)[0]  # the latest; every customer has one
        return JSONResponse(
            await write(session, conversation, Mensagem(autor="cliente", texto=text, entregue=True)), 201
        )


@timed(MESSAGE_PROCESSING_TIME)
async def answer(request: Request) -> JSONResponse:
    """An agent answers, or says good-bye: the message is kept whether the gateway takes it or not."""
    (text,) = await fields(request, "text")
    async with Session() as session:
        conversation, sent = await chosen(session, request), True
        try:
            await send_whatsapp_message((await conversation.awaitable_attrs.cliente).telefone, text)
        except (ConnectionError, isp_perf.CircuitOpenError):
            sent = False
        if request.url.path.endswith("/close"):
            messages, conversation.situacao = await conversation.awaitable_attrs.mensagens, "encerrada"
            CONVERSATION_DURATION.observe((messages[0].enviada_em - messages[-1].enviada_em).total_seconds())
        message = Mensagem(autor="atendente", texto=text, entregue=sent)
        return JSONResponse(await write(session, conversation, message), 201 if sent else 202)


async def suggest(request: Request) -> JSONResponse:
    async with Session() as session:
        messages = await (await chosen(session, request)).awaitable_attrs.mensagens
    try:
        return JSONResponse({"suggestion": await suggest_answer(messages[0].texto)})
    except (ConnectionError, TimeoutError, isp_perf.CircuitOpenError):
        return JSONResponse({"suggestion": None})


async def show_dashboard(_: Request) -> JSONResponse:
    return JSONResponse({"dashboard_stats": await dashboard() | {"cache_hit": False}})


async def set_fault(request: Request) -> JSONResponse:
    (fault,) = await fields(request, "fault")
    if fault not in ("none", "down", "slow") or request.path_params["service"] not in ("gateway", "ai"):
        raise HTTPException(422, "fault must be none, down or slow, of gateway or ai")
    (FOLDER / f"{request.path_params['service']}-fault").write_text(fault)
    return JSONResponse({"fault": fault})


@asynccontextmanager
async def lifespan(_: Starlette):
    await seeding.load()
    for agent in range(1, seeding.AGENTS + 1) if PERF else ():
        await inbox(agent, 1)  # the first users shall not wait; one by one, so that the times of loads are true
    yield
    await engine.dispose()


app = Starlette(
    routes=[
        Route("/agents/{agent:int}/conversations/{page:int}", list_conversations),
        Route("/conversations/{conversation:int}/messages", answer, methods=["POST"]),
        Route("/conversations/{conversation:int}/close", answer, methods=["POST"]),
        Route("/conversations/{conversation:int}/suggestion", suggest),
        Route("/customers/{customer:int}", show_customer),
        Route("/webhook/whatsapp", receive, methods=["POST"]),
        Route("/faults/{service}", set_fault, methods=["PUT"]),
        *([] if PERF else [Route("/performance/dashboard", show_dashboard)]),
        Route("/queries", lambda _: JSONResponse(queries)),
    ],
    lifespan=lifespan,
)
if PERF:
    app = toolkit.wrap(app, dashboard=dashboard)  # compressed, measured, with all the monitoring endpoints
