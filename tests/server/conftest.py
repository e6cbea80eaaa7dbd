"""Each test gets its own server, on both event loops."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from gateway.server.service import Bounds
from tests.server.live import Server, with_lifespan


@pytest.fixture(params=["asyncio", "uvloop"], scope="session")
def loop_factory(request):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]


@pytest.fixture
def starting(loop_factory):
    """starting(app, **options of serve) → Server."""
    servers = []

    def start(app, **options):
        servers.append(Server(app, loop_factory, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def serving(starting):
    """serving(function for http scopes, **options of serve) → Server; bounds may be given as a dict."""

    def start(answer, **options):
        bounds = Bounds(**options.pop("bounds", {}))
        return starting(with_lifespan(answer), bounds=bounds, **options)

    return start
