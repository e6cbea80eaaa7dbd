"""ClientWatch: a disconnect ends the work, and only a disconnect is called so."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import ClientLeft
from gateway.proxy.client_watch import ClientWatch


class Client:
    """A connection that can be closed, as a server tells of it."""

    def __init__(self, *, is_told: bool) -> None:
        self.left = asyncio.Event()
        self.on_leave: Callable[[], None] | None = None
        self.scope = {"extensions": {"gateway.on_leave": self.tell} if is_told else {}}

    def tell(self, on_leave: Callable[[], None] | None) -> None:
        self.on_leave = on_leave

    def leave(self) -> None:
        self.left.set()
        if self.on_leave is not None:
            self.on_leave()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture(params=[True, False], ids=["told", "asking"])
def client(request: pytest.FixtureRequest) -> Client:
    """By our server, which calls; and by any other, which has to be asked."""
    return Client(is_told=request.param)


async def test_a_disconnect_cancels_the_work(client: Client):
    """The work's own clean-up runs, then the caller sees ClientLeft."""
    cleaned = []

    async def work():
        async with ClientWatch(client.scope, client.receive) as watch:
            client.leave()
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


async def test_work_that_ends_is_left_alone(client: Client):
    """Also by a client that leaves behind it."""
    async with ClientWatch(client.scope, client.receive) as watch:
        await asyncio.sleep(0)
    client.leave()
    await asyncio.sleep(0)

    assert not watch.gone


async def test_errors_of_the_work_pass(client: Client):
    with pytest.raises(ZeroDivisionError):
        async with ClientWatch(client.scope, client.receive):
            raise ZeroDivisionError


async def test_a_cancellation_from_elsewhere_stays_one(client: Client):
    """A drain out of time is no client that left."""
    entered = asyncio.Event()

    async def work():
        async with ClientWatch(client.scope, client.receive):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
