"""The app on GATEWAY_OPS_BIND: metrics for Prometheus, probes for whoever starts and stops processes.

Nothing else is here, and nothing of it on the public address. Who reaches it sees the names of tenants and
models: it needs no key, so it belongs on the loopback or on a network of operators.
"""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.ops.gauges import Gauges, Standing
from gateway.rules.readiness import readiness_document

_NO_STORE: Final = {"cache-control": "no-store"}


def build(registry: CollectorRegistry, standing: Standing) -> Starlette:
    """The ASGI app. It has no lifespan."""
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
    return app


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
