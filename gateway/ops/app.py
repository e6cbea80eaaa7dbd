"""The app on GATEWAY_OPS_BIND: metrics for Prometheus, probes for whoever starts and stops processes.

Nothing else is here, and nothing of it on the public address. Who reaches it sees the names of tenants and
models: it needs no key, so it belongs on the loopback or on a network of operators.
"""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.ops.gauges import Gauges, Standing
from gateway.rules.addresses import is_loopback
from gateway.rules.readiness import readiness_document

_NO_STORE: Final = {"cache-control": "no-store"}


def build(registry: CollectorRegistry, standing: Standing, host: str) -> ASGIApp:
    """The ASGI app for the address `host`. It has no lifespan."""
    ProcessCollector(registry=registry)
    gauges = Gauges(standing)
    registry.register(gauges)
    probes = _Probes(standing)
    app = Starlette(
        routes=[
            Route("/metrics", _Scrapes(registry, gauges).answer),
            Route("/healthz", probes.health),
            Route("/readyz", probes.readiness),
        ]
    )
    app.router.redirect_slashes = False
    return _ByItsOwnName(app) if is_loopback(host) else app


class _ByItsOwnName:
    """On the loopback, answers who asks this machine for it, and nobody else.

    A page in a browser on this machine may have its own name point here (DNS rebinding): then it could read
    all that is answered, as if it came from where the page did. Only the name tells it apart.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if is_loopback(_name_of(scope)) else _MISDIRECTED
        await app(scope, receive, send)


_MISDIRECTED: Final = JSONResponse(
    {"error": "This address is asked for as localhost, 127.0.0.1 or [::1] only."}, 421, headers=_NO_STORE
)


def _name_of(scope: Scope) -> str:
    """The Host header without its port; a port alone is no name."""
    host: str = Headers(scope=scope).get("host", "")
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


class _Scrapes:
    """One at a time: some thousand lines take tens of milliseconds, in a thread, beside the streams."""

    def __init__(self, registry: CollectorRegistry, gauges: Gauges) -> None:
        self._registry = registry
        self._gauges = gauges
        self._turn = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._turn:
            await self._gauges.read()
            text = await asyncio.to_thread(encode, self._registry)
        return Response(text, headers={"content-type": content_type, **_NO_STORE})


class _Probes:
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def readiness(self, _: Request) -> Response:
        readiness = self._standing.readiness
        missing = readiness.missing()
        document = readiness_document(missing, readiness.backends_lacking())
        return JSONResponse(document, 503 if missing else 200, headers=_NO_STORE)
