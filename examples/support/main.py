"""Customer support of an internet provider: customers write over WhatsApp, agents answer. `python -m uvicorn main:app`.

ISP_PERF_OFF=1 leaves out the block "the difference", and with it isp_perf. Settings: ISP_PERF_EXAMPLE_DIR (folder of
the data), DATABASE_URL (PostgreSQL instead of SQLite), REDIS_URL (second level of the cache).
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
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import isp_perf

PERF = os.environ.get("ISP_PERF_OFF", "0") in ("", "0")
PAGE, LAST_MESSAGES = 20, 3
EAGER = ()  # what a list loads along with its conversations

# ---- what the service reads


async def inbox(agent: int, page: int) -> list[dict[str, Any]]:
    """One page of an agent's conversations, latest first, each with its customer and last messages."""
    async with Session() as session:
        latest = select(Conversa).where(Conversa.atendente_id == agent).order_by(Conversa.ultima_em.desc())
        found = await session.scalars(latest.options(*EAGER).limit(PAGE).offset((page - 1) * PAGE))
        return [await card(conversation) for conversation in found]


async def card(conversation: Conversa) -> dict[str, Any]:
    """What a list shows of a conversation; each relationship that is not loaded yet costs one more query."""
    customer, agent = await conversation.awaitable_attrs.cliente, await conversation.awaitable_attrs.atendente
    messages = await conversation.awaitable_attrs.mensagens
    return {
        "id": conversation.id,
        "subject": conversation.assunto,
        "status": conversation.situacao,
        "last_at": conversation.ultima_em.isoformat(),
        "customer": {"id": customer.id, "name": customer.nome, "phone": customer.telefone, "plan": customer.plano},
        "agent": {"id": agent.id, "name": agent.nome, "team": agent.equipe},
        "messages": [shown(message) for message in messages[:LAST_MESSAGES]],
    }


def shown(message: Mensagem) -> dict[str, Any]:
    return {"id": message.id, "from": message.autor, "text": message.texto, "at": message.enviada_em.isoformat()}


async def profile(customer: int) -> dict[str, Any] | None:
    """A customer with all conversations."""
    async with Session() as session:
        found = await session.get(Cliente, customer)
        if found is None:
            return None
        own = await found.awaitable_attrs.conversas
        count = select(func.count()).select_from(Mensagem).join(Conversa).where(Conversa.cliente_id == customer)
        facts = {"id": found.id, "name": found.nome, "phone": found.telefone, "plan": found.plano}
        facts |= {"district": found.bairro, "messages": await session.scalar(count)}
        return facts | {"conversations": [{"id": c.id, "subject": c.assunto, "status": c.situacao} for c in own]}


async def dashboard() -> dict[str, int]:
    """Totals over all conversations."""
    today = datetime.combine(datetime.now(UTC).date(), time.min)
    total, sent = select(func.count()).select_from(Conversa), select(func.count()).select_from(Mensagem)
    active, written = total.where(Conversa.situacao == "aberta"), sent.where(Mensagem.enviada_em >= today)
    figures = {"total_conversations": total, "active_conversations": active, "messages_today": written}
    async with Session() as session:
        return {name: await session.scalar(figure) or 0 for name, figure in figures.items()}


async def send_whatsapp_message(phone: str, text: str) -> None:
    """Stand in for the gateway; a fault that was switched on (PUT /gateway) holds in all workers at once."""
    switch = FOLDER / "gateway-fault"
    fault = switch.read_text() if switch.exists() else "none"
    await asyncio.sleep(2.0 if fault == "slow" else 0.002)
    if fault == "down":
        raise ConnectionError(f"no answer for {len(text)} characters to {phone[:5]}...")


# ---- the difference

if PERF:
    cached, cache_manager = isp_perf.cached, isp_perf.cache_manager
    if os.environ.get("REDIS_URL") or os.environ.get("REDIS_CLUSTER_NODES"):
        namespace = os.environ.get("ISP_PERF_NAMESPACE", "suporte")
        cache_manager.configure(redis=isp_perf.RedisPool.from_env(), namespace=namespace)
    EAGER = isp_perf.preload(Conversa, "cliente", "atendente", "mensagens", limit=LAST_MESSAGES)
    inbox = cached("inbox:{agent}:{page}", ttl=300, l1_ttl=5)(inbox)  # 5 s: how old another worker's copy may be
    profile = cached("user_profile:{customer}", ttl=1800, l1_ttl=5)(profile)
    load_dashboard, dashboard = dashboard, cached("dashboard", ttl=10)(dashboard)
    guarded = isp_perf.circuit_breaker("whatsapp_api", isp_perf.WHATSAPP_CIRCUIT_CONFIG)
    send_whatsapp_message = guarded(send_whatsapp_message)

    async def changed(conversation: Conversa) -> None:
        """Drop what a write to this conversation has made old."""
        await profile.invalidate(conversation.cliente_id)
        await cache_manager.invalidate_pattern(f"inbox:{conversation.atendente_id}:*")

    async def warm() -> None:
        """Load what is asked for first, so that the first users do not wait."""
        await cache_manager.warm_cache({"dashboard": {"fetch_func": load_dashboard, "ttl": 10}})
        for agent in range(1, seeding.AGENTS + 1):
            await inbox(agent, 1)


# ---- HTTP


def number(request: Request, name: str) -> int:
    return min(max(request.path_params[name], 1), 2**31 - 1)


async def fields(request: Request, *names: str) -> list[str]:
    try:
        given = await request.json()
        values = [given[name] for name in names]
    except (ValueError, KeyError, TypeError):
        values = [None]
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise HTTPException(422, f"send a JSON object with text in {', '.join(names)}")
    return values


async def write(session: Any, conversation: Conversa, message: Mensagem) -> dict[str, Any]:
    message.enviada_em = datetime.now(UTC).replace(tzinfo=None)
    conversation.ultima_em, message.conversa_id = message.enviada_em, conversation.id
    session.add(message)
    await session.commit()
    if PERF:
        await changed(conversation)
    return {"conversation": conversation.id, "delivered": message.entregue, "message": shown(message)}


async def list_conversations(request: Request) -> Response:
    return JSONResponse({"conversations": await inbox(number(request, "agent"), number(request, "page"))})


async def show_customer(request: Request) -> Response:
    found = await profile(number(request, "customer"))
    return JSONResponse(found or {"error": "no such customer"}, 200 if found else 404)


async def receive(request: Request) -> Response:
    """The webhook: WhatsApp hands over what a customer wrote."""
    phone, text = await fields(request, "phone", "text")
    async with Session() as session:
        customer = await session.scalar(select(Cliente).where(Cliente.telefone == phone))
        if customer is None:
            raise HTTPException(404, "no customer has this phone number")
        conversation = (await customer.awaitable_attrs.conversas)[0]  # the latest; every customer has one
        message = Mensagem(autor="cliente", texto=text, entregue=True)
        return JSONResponse(await write(session, conversation, message), 201)


async def answer(request: Request) -> Response:
    """An agent answers: the message goes out through the gateway, and is kept whether it was taken or not."""
    (text,) = await fields(request, "text")
    async with Session() as session:
        conversation = await session.get(Conversa, number(request, "conversation"))
        if conversation is None:
            raise HTTPException(404, "no such conversation")
        message = Mensagem(autor="atendente", texto=text, entregue=True)
        try:
            await send_whatsapp_message((await conversation.awaitable_attrs.cliente).telefone, text)
        except (ConnectionError, isp_perf.CircuitOpenError):
            message.entregue = False
        return JSONResponse(await write(session, conversation, message), 201 if message.entregue else 202)


async def set_fault(request: Request) -> Response:
    (fault,) = await fields(request, "fault")
    if fault not in ("none", "down", "slow"):
        raise HTTPException(422, "fault must be none, down or slow")
    (FOLDER / "gateway-fault").write_text(fault)
    return JSONResponse({"fault": fault})


async def show_dashboard(_: Request) -> Response:
    hit = PERF and await dashboard.peek() is not None
    return JSONResponse({"dashboard_stats": await dashboard() | {"cache_hit": hit}})


async def health(_: Request) -> Response:
    return JSONResponse({"status": "healthy", "isp_perf": PERF, "queries": queries["sent"]})


async def cache_stats(_: Request) -> Response:
    return JSONResponse({"cache_stats": cache_manager.stats().as_dict() if PERF else {}})


@asynccontextmanager
async def lifespan(_: Starlette):
    await seeding.load()
    if PERF:
        await warm()
    yield
    if PERF:
        await cache_manager.aclose()
    await engine.dispose()


app = Starlette(
    routes=[
        Route("/agents/{agent:int}/conversations/{page:int}", list_conversations),
        Route("/conversations/{conversation:int}/messages", answer, methods=["POST"]),
        Route("/customers/{customer:int}", show_customer),
        Route("/webhook/whatsapp", receive, methods=["POST"]),
        Route("/gateway", set_fault, methods=["PUT"]),
        Route("/performance/dashboard", show_dashboard),
        Route("/cache/stats", cache_stats),
        Route("/health", health),
    ],
    lifespan=lifespan,
)
if PERF:
    app = isp_perf.CompressionMiddleware(app)
