"""The one catch-all route: what each operation does, once the layers above have let it through."""

from collections.abc import Awaitable
from typing import Final

import orjson
from attrs import frozen
from starlette.types import Receive, Scope, Send

from gateway.accounting import Plan
from gateway.errors import Draining, GatewayError, ModelNotFound
from gateway.formats import anthropic, ollama
from gateway.formats.chat import AnswerStamp, Call, ChatCall, GenerateCall
from gateway.formats.ollama.loaded import write_ps
from gateway.formats.ollama.models import write_tags, write_version
from gateway.formats.ollama.shown import read_show, write_shown
from gateway.formats.openai.models import write_model, write_models
from gateway.formats.parts import parts_of
from gateway.formats.sizes import likely_tokens
from gateway.formats.translation import SURFACES, SurfaceFormat
from gateway.middleware.context import JSON, Header, answer, caller_of, exchange_of
from gateway.middleware.intake import worked_on
from gateway.middleware.offering import Offering
from gateway.middleware.tokenizers import Tokenizers
from gateway.middleware.zones import zone_for
from gateway.model import Exchange, ModelCard, Operation, Route
from gateway.ports import Allowances, Clock, Lifecycle, Readiness, RefusalLog
from gateway.proxy import pages
from gateway.proxy.client_watch import ClientWatch
from gateway.proxy.relay import Job, Relay
from gateway.proxy.router import Router
from gateway.proxy.visit import Visit
from gateway.rules.fair_queue import Ticket
from gateway.rules.model_names import canonical
from gateway.rules.plans import takes_of
from gateway.rules.quota_headers import usage_document
from gateway.rules.readiness import readiness_document
from gateway.rules.request_head import patience_of

_TEXT: Final = b"text/plain; charset=utf-8"
_JSON: Final = b"application/json; charset=utf-8"

# What clients that compare versions are told: the Ollama whose wire protocol this gateway speaks.
OLLAMA_VERSION: Final = "0.33.0"

# Names what of an answer is no true count, where the shape of the answer has no place to say so.
_ESTIMATED: Final = b"x-gateway-estimated"

# A header for people to read, not a mirror of whatever was sent.
_MAX_NAMED: Final = 20


@frozen
class Known:
    """An answer that we know ourselves."""

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: tuple[Header, ...] = ()


class Endpoint:
    """Serve an admitted Exchange. Raises GatewayError for what can't be served."""

    def __init__(
        self,
        *,
        offering: Offering,
        clock: Clock,
        lifecycle: Lifecycle,
        readiness: Readiness,
        allowances: Allowances,
        refusals: RefusalLog,
        tokenizers: Tokenizers,
        router: Router,
    ) -> None:
        self._offering = offering
        self._clock = clock
        self._lifecycle = lifecycle
        self._readiness = readiness
        self._allowances = allowances
        self._refusals = refusals
        self._tokenizers = tokenizers
        self._router = router

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if exchange.operation in SURFACES:
            return self._infer(exchange, SURFACES[exchange.operation], ClientWatch(scope, receive), send)
        return self._tell(exchange, send)

    async def _tell(self, exchange: Exchange, send: Send) -> None:
        known = await self._known(exchange)
        await answer(send, known.status, known.body, known.content_type, list(known.headers))

    async def _known(self, exchange: Exchange) -> Known:
        match exchange.operation:
            case Operation.SHOW:
                return await self._show(exchange)
            case Operation.MODEL:
                return await self._model(exchange)
            case Operation.USAGE:
                return await self._usage(exchange)
            case Operation.COUNT_TOKENS:
                return await self._count(exchange)
            case _:
                return self._at_hand(exchange)

    def _at_hand(self, exchange: Exchange) -> Known:  # noqa: PLR0911 - a table, in words
        """What nobody has to be asked for."""
        match exchange.operation:
            case Operation.ROOT:
                return _root(exchange)
            case Operation.DOCS:
                return Known(pages.DOCS, pages.HTML, headers=pages.DOCS_HEADERS)
            case Operation.OPENAPI:
                return Known(pages.OPENAPI)
            case Operation.VERSION:
                return Known(write_version(OLLAMA_VERSION), _JSON)
            case Operation.TAGS:
                return Known(write_tags(self._offering.cards(caller_of(exchange))), _JSON)
            case Operation.PS:
                loaded = self._offering.loaded(caller_of(exchange))
                return Known(write_ps(loaded, self._clock.now()), _JSON)
            case Operation.MODELS:
                return Known(write_models(self._offering.cards(caller_of(exchange))))
            case Operation.HEALTH:
                return Known(b'{"status":"ok"}')
            case Operation.READINESS:
                return self._ready()
            case _:
                raise RuntimeError(f"nobody serves {exchange.operation}")

    def _ready(self) -> Known:
        missing = self._readiness.missing()
        document = readiness_document(missing, self._readiness.backends_lacking())
        return Known(orjson.dumps(document), status=503 if missing else 200)

    async def _model(self, exchange: Exchange) -> Known:
        name = exchange.route.model if isinstance(exchange.route, Route) and exchange.route.model else ""
        return Known(write_model(await self._card(exchange, name), name))

    async def _show(self, exchange: Exchange) -> Known:
        name = read_show(exchange.body)
        return Known(write_shown(await self._card(exchange, name)), _JSON)

    async def _card(self, exchange: Exchange, name: str) -> ModelCard:
        exchange.model = canonical(name) or name
        found = await self._offering.find(caller_of(exchange), name)
        if found is None:
            raise ModelNotFound(name)
        return found.shown

    async def _usage(self, exchange: Exchange) -> Known:
        """The caller's own limits and budgets. Takes nothing."""
        principal, now = caller_of(exchange), self._clock.now()
        ids = principal.tenant_policy, principal.key_policy, principal.tenant_id, principal.key_id
        takes = takes_of(*ids, now=now, zone=zone_for(principal))
        plan = Plan(principal.tenant_id, exchange.request_id, takes, 0, 0, 0.0, principal.epoch)
        outlook = await self._allowances.look(plan)
        document = usage_document(
            outlook.standings,
            self._refusals.of(principal.key_id),
            key=principal.key,
            tenant=principal.tenant,
            now=now,
            log_prompts_s=principal.log_prompts_s,
        )
        return Known(orjson.dumps(document))

    async def _count(self, exchange: Exchange) -> Known:
        """How many tokens a prompt has: by its backend's tokenizer, else an estimate that is told as one."""
        call, (backend, card) = exchange.call, exchange.target
        # How many tokens an image comes to is nothing that a tokenizer knows.
        if card.engine is not None and not any(message.images for message in call.messages):
            exchange.backend = backend.name
            counted = await self._tokenizers.count(exchange, card.engine)
            if counted is not None and counted > 0:
                return Known(anthropic.write_count(counted))
        estimate = await worked_on(exchange.is_heavy, likely_tokens, call)
        return Known(anthropic.write_count(estimate), headers=((_ESTIMATED, b"input_tokens"),))

    async def _infer(
        self, exchange: Exchange, surface: SurfaceFormat, watch: ClientWatch, send: Send
    ) -> None:
        call, (backend, card) = exchange.call, exchange.target
        stamp = AnswerStamp(exchange.request_id, call.model, self._clock.now(), self._clock.now)
        if isinstance(call, ChatCall | GenerateCall) and _is_load(call):
            # Answered as Ollama does, and not done: models come and go by use and by the operator's settings.
            await answer(send, 200, ollama.write_load_answer(stamp, call), _JSON)
            return
        exchange.backend = backend.name
        parts = parts_of(call)
        visit = Visit(self._router, exchange, _ticket(exchange, card, self._clock.elapsed(), len(parts)))
        job = Job(call, surface, visit, stamp, parts, _dropped(call))
        async with watch:
            relay = Relay(
                job, exchange, self._clock, cut=lambda: None if watch.gone else self._reason_to_cut(exchange)
            )
            await (relay.stream(send) if call.stream else relay.whole(send))

    def _reason_to_cut(self, exchange: Exchange) -> GatewayError | None:
        """Why a request is cancelled whose caller is there: it may not go on, or a drain is out of time."""
        return exchange.evicted or (Draining() if self._lifecycle.draining else None)


def _root(exchange: Exchange) -> Known:
    """What Ollama's clients look for, and for people the way to the page about this gateway."""
    if "text/html" in (exchange.head.text(b"accept") or ""):
        return Known(pages.ROOT, pages.HTML, headers=pages.ROOT_HEADERS)
    return Known(b"Ollama is running", _TEXT, headers=((b"vary", b"accept"),))


def _is_load(call: ChatCall | GenerateCall) -> bool:
    """Ollama's way to load or unload a model: a request without a prompt."""
    return not call.messages if isinstance(call, ChatCall) else not call.prompt


def _ticket(exchange: Exchange, card: ModelCard, now: float, parts: int) -> Ticket:
    """What a queue has to know of a request of so many parts."""
    principal = exchange.principal
    if principal is None:
        raise RuntimeError("a model was asked past Auth")
    return Ticket(
        tenant=principal.tenant_id,
        key=principal.key_id,
        model=canonical(card.name) or card.name,
        arrived=now,
        weight=principal.weight,
        patience_s=patience_of(exchange.head),
        cost=parts or 1,
    )


def _dropped(call: Call) -> tuple[Header, ...]:
    """Name what was read and not honoured. Field names are the caller's text: only plain ones are echoed."""
    if not call.dropped:
        return ()
    names = [name for name in call.dropped if name.isascii() and name.isidentifier()][:_MAX_NAMED]
    return ((b"x-gateway-dropped-options", ", ".join(names).encode("ascii")),) if names else ()
