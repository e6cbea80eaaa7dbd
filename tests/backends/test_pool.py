"""The backends of a process change while answers are under way."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from gateway.backends.http import HttpBackend
from gateway.backends.pool import Pool
from gateway.config import BackendConfig
from gateway.errors import BackendUnreachable, ClientLeft
from gateway.formats.chat import UpstreamRequest
from tests.backends.test_http import PATIENT
from tests.doubles import Double, chat_stream

CHAT = UpstreamRequest("/api/chat", {"model": "double:latest", "stream": True})


async def met(_: Sequence[HttpBackend]) -> None:
    """Nothing is asked of those that come."""


async def test_what_stays_is_the_same_and_what_goes_finishes_first():
    """Slots and weight are no reason for a new connection; another credential is."""
    with Double() as double:
        double.scripts["/api/chat"] = chat_stream()
        stays, goes = BackendConfig("stays", double.url), BackendConfig("goes", double.url)
        pool = Pool([stays, goes], PATIENT)
        await pool.start()
        kept, gone = pool.backends
        adopted: list[tuple[str, ...]] = []

        async with gone.send(CHAT, request_id="r1") as answer:
            new = [
                BackendConfig("new", double.url, credential="s3cret"),
                BackendConfig("stays", double.url, slots=2, weight=3),
            ]
            await pool.set(new, lambda: adopted.append(tuple(one.name for one in pool.backends)), met)
            assert b"there" in await answer.body()
        await asyncio.wait(list(pool._retiring), timeout=30)

        assert adopted == [("new", "stays")]
        assert pool.backends[1] is kept
        assert pool.pairs[1][1].slots == 2
        with pytest.raises(BackendUnreachable):
            gone.send(CHAT, request_id="r2")
        async with pool.backends[0].send(CHAT, request_id="r3") as answer:
            assert answer.status == 200
        await pool.stop()


async def test_what_goes_stays_open_between_the_parts_of_a_call():
    """Between two parts no answer is under way, for a moment only: the visit holds the backend."""
    with Double() as double:
        double.scripts["/api/chat"] = chat_stream()
        pool = Pool([BackendConfig("goes", double.url)], PATIENT)
        await pool.start()
        (gone,) = pool.backends
        gone.hold()
        async with gone.send(CHAT, request_id="r1") as answer:
            await pool.set([], lambda: None, met)
            await answer.body()
        (retiring,) = pool._retiring
        await asyncio.wait([retiring], timeout=0.1)

        async with gone.send(CHAT, request_id="r2") as answer:
            assert b"there" in await answer.body()
        assert not retiring.done()
        gone.let_go()
        await asyncio.wait_for(retiring, 30)

        with pytest.raises(BackendUnreachable):
            gone.send(CHAT, request_id="r3")
        await pool.stop()


async def test_what_is_used_again_in_the_moment_of_its_end_is_waited_for():
    """Who waits for the end is woken a moment later; by then the next use may have begun."""
    with Double() as double:
        pool = Pool([BackendConfig("goes", double.url)], PATIENT)
        await pool.start()
        (gone,) = pool.backends
        gone.hold()
        await pool.set([], lambda: None, met)
        (retiring,) = pool._retiring
        await asyncio.sleep(0)

        gone.let_go()
        gone.hold()
        await asyncio.wait([retiring], timeout=0.1)
        assert not retiring.done()

        gone.let_go()
        await asyncio.wait_for(retiring, 30)
        await pool.stop()


async def test_a_stop_waits_for_nobody():
    with Double() as double:
        double.scripts["/api/chat"] = chat_stream(gap_s=60)
        pool = Pool([BackendConfig("goes", double.url)], PATIENT)
        await pool.start()
        (gone,) = pool.backends
        with suppress(ClientLeft):
            async with gone.send(CHAT, request_id="r1"):
                await pool.set([], lambda: None, met)

                await asyncio.wait_for(pool.stop(), 30)
                raise ClientLeft


async def test_who_comes_is_asked_before_it_is_adopted():
    with Double() as double:
        pool = Pool([BackendConfig("a", double.url)], PATIENT)
        await pool.start()
        (before,) = pool.backends
        order: list[object] = []

        async def meet(backends: Sequence[HttpBackend]) -> None:
            assert pool.backends == (before,)
            order.append([len(await backend.models()) for backend in backends])

        changed = BackendConfig("a", double.url, credential="s3cret")
        await pool.set([changed], lambda: order.append(pool.pairs[0][1]), meet)

        assert order == [[1], changed]
        await pool.stop()


async def test_a_stop_closes_who_is_asked_before_it_comes():
    with Double() as double:
        pool = Pool([], PATIENT)
        await pool.start()
        coming: list[HttpBackend] = []

        async def meet(backends: Sequence[HttpBackend]) -> None:
            coming.extend(backends)
            await pool.stop()

        await pool.set([BackendConfig("comes", double.url)], lambda: None, meet)

        with pytest.raises(BackendUnreachable):
            coming[0].send(CHAT, request_id="r1")
