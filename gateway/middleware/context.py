"""How the layers hand the Exchange down: one entry of the ASGI scope, and nothing else."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from gateway.model import Exchange, Principal

_EXCHANGE: Final = "gateway.exchange"

Header = tuple[bytes, bytes]
JSON: Final = b"application/json"


def open_exchange(scope: Any, exchange: Exchange) -> None:
    scope[_EXCHANGE] = exchange


def exchange_of(scope: Any) -> Exchange:
    """The Exchange that Audit opened. KeyError outside the pipeline."""
    exchange: Exchange = scope[_EXCHANGE]
    return exchange


def caller_of(exchange: Exchange) -> Principal:
    """Who asks. RuntimeError where Auth has not been."""
    if exchange.principal is None:
        raise RuntimeError(f"{exchange.operation} was reached past Auth")
    return exchange.principal


def is_done(sent: Awaitable[None]) -> bool:
    """Nothing is left to wait for of what `send` returned: our server gives back a future that is done.

    Then a piece of a stream needs no coroutine.
    """
    return isinstance(sent, asyncio.Future) and sent.done()


def answer(
    send: Any, status: int, body: bytes, content_type: bytes = JSON, headers: list[Header] | None = None
) -> Awaitable[None]:
    """Send a whole answer: head and body. Await what is returned, unless it `is_done`."""
    fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or ())]
    begun = send({"type": "http.response.start", "status": status, "headers": fields})
    message = {"type": "http.response.body", "body": body}
    return send(message) if is_done(begun) else _ended(begun, send, message)


async def _ended(begun: Awaitable[None], send: Any, message: Any) -> None:
    await begun
    await send(message)


async def raising(error: Exception) -> None:
    """What a layer raised when it was called, for whoever awaits it."""
    raise error
