"""A backend away, hanging or mad: its callers are told, what it did is charged, and nobody else notices."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

import aiohttp
import pytest
from attrs import frozen

from gateway.accounting import Policy
from tests import doubles
from tests.doubles import HEAD_OF_STREAM, Double, Script, chat_frame, chunk
from tests.engines import wait_until
from tests.fleet.books import Books
from tests.fleet.callers import WAYS, Load, Told, at_once
from tests.fleet.counted_model import MAD, Order
from tests.fleet.fleet import Fleet
from tests.fleet.trials import SHORT
from tests.gateways import heal

CALLERS: Final = 8
ORDER: Final = Order(tokens=20, model=MAD)
STREAMS: Final = [way for way in WAYS if way[1]]
WORD: Final = chunk(chat_frame("x"))
MIB: Final = b"100000\r\n%b\r\n" % (b"x" * 2**20)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """More than it was asked for, until nobody reads it any more."""
    writer.write(HEAD_OF_STREAM)
    while not reader.at_eof():
        writer.write(WORD)
        await writer.drain()
        await asyncio.sleep(0)


@frozen
class Row:
    """What a backend does (None: it is not there); what callers of a stream are told, and if they pay."""

    script: Script | None
    status: int
    code: str | None
    is_charged: bool


ROWS: Final = {
    "gone": Row(None, 502, "backend_failed", is_charged=False),
    "closes": Row(doubles.raw(), 502, "backend_failed", is_charged=False),
    "no HTTP": Row(doubles.raw(b"\0\1\2\r\n\r\n"), 502, "backend_failed", is_charged=False),
    "no JSON": Row(doubles.raw(HEAD_OF_STREAM, b"3\r\n{x\n\r\n"), 502, "backend_failed", is_charged=True),
    "no line": Row(doubles.raw(HEAD_OF_STREAM, *[MIB] * 40), 502, "backend_failed", is_charged=True),
    "says nothing": Row(doubles.hang(), 504, "backend_timeout", is_charged=True),
    "stops": Row(doubles.hang(HEAD_OF_STREAM, WORD, WORD), 200, "backend_timeout", is_charged=True),
    "breaks off": Row(
        doubles.reset_after(HEAD_OF_STREAM, WORD, WORD), 200, "backend_failed", is_charged=True
    ),
    "never ends": Row(endless, 200, None, is_charged=True),
}


@contextmanager
def away(backend: Double) -> Iterator[None]:
    backend.__exit__()
    yield
    backend.__enter__()


@pytest.mark.parametrize("name", ROWS)
def test_a_backend_that_fails_is_told_and_counted(fleet: Fleet, mad_backend: Double, name: str):
    """In the stream where that has begun. Callers of another backend notice nothing."""
    row = ROWS[name]
    (healthy,) = fleet.customers([f"before: {name}"], Policy())
    for url in fleet.urls:
        heal(url, healthy.key, mad_backend, MAD)
    if row.script is not None:
        mad_backend.scripts["/api/chat"] = row.script
    policy = Policy(total_tokens=10**6, concurrent=1000)
    mad, other = fleet.customers([f"mad: {name}", f"beside: {name}"], policy)

    async def ask_all() -> list[Told]:
        async with aiohttp.ClientSession() as session:
            return await at_once(session, fleet.urls, mad.key, [ORDER] * CALLERS, STREAMS)

    with (
        away(mad_backend) if row.script is None else nullcontext(),
        Load(fleet.urls, other.key, SHORT, callers=6) as load,
    ):
        told = asyncio.run(ask_all())
        assert wait_until(lambda: len(load.since(0)) >= 20, 20)

    assert {one.status for one in told} == {row.status}
    assert {one.is_complete for one in told} == {row.code is None}
    assert {bool(one.error) for one in told} == {row.code is not None}
    books = Books(fleet, mad, told)
    assert books.rest(15) == []
    assert {entry["error_code"] for entry in books.audit.values()} == {row.code}
    assert {0 < entry["tokens"] <= entry["reserved"] for entry in books.ledger.values()} == {row.is_charged}
    assert [(one.status, one.error) for one in load.told if one.status != 200] == []
    Books(fleet, other, load.told).close()
