"""The app: which of its two halves a scope is for."""

import pytest
from starlette.applications import Starlette

from gateway.app import App
from tests.asgi import nobody, scope_of


class Half:
    """Remembers what it was called for."""

    def __init__(self) -> None:
        self.called_for: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        self.called_for.append(scope["type"])


@pytest.mark.parametrize("kind", ["http", "lifespan", "websocket"])
async def test_requests_alone_come_to_the_pipeline(kind: str):
    """So its layers need not ask what they are called for."""
    starlette, pipeline = Half(), Half()

    await App(starlette, pipeline)(scope_of() | {"type": kind}, nobody, nobody)

    assert pipeline.called_for == [kind] * (kind == "http")
    assert starlette.called_for == [kind] * (kind != "http")


async def test_a_websocket_is_refused():
    """Nothing is spoken over it here; a server that offers one is told so before it is accepted."""
    said = []

    async def send(message) -> None:
        said.append(message["type"])

    await App(Starlette(), Half())(scope_of() | {"type": "websocket"}, nobody, send)

    assert said == ["websocket.close"]
