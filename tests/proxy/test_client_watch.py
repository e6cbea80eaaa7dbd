"""ClientWatch: a disconnect ends the work, and only a disconnect is called so."""

import asyncio

import pytest

from gateway.errors import ClientLeft
from gateway.proxy.client_watch import ClientWatch


class Client:
    """The receiving end of a connection that can be closed."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_a_disconnect_cancels_the_work():
    """The work's own clean-up runs, then the caller sees ClientLeft."""
    client = Client()
    cleaned = []

    async def work():
        async with ClientWatch(client.receive) as watch:
            client.left.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(watch.gone)

    with pytest.raises(ClientLeft):
        await work()

    assert cleaned == [True]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_that_ends_is_left_alone():
    client = Client()

    async with ClientWatch(client.receive) as watch:
        await asyncio.sleep(0)

    assert not watch.gone


async def test_errors_of_the_work_pass():
    with pytest.raises(ZeroDivisionError):
        async with ClientWatch(Client().receive):
            raise ZeroDivisionError


async def test_a_cancellation_from_elsewhere_stays_one():
    """A drain out of time is no client that left."""
    entered = asyncio.Event()

    async def work():
        async with ClientWatch(Client().receive):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
