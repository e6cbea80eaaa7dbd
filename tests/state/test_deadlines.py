"""One timer for many deadlines: nobody waits for longer than was said, save where this loop was late."""

import asyncio
from time import sleep

from attrs import define

from gateway.state.deadlines import Deadlines

LONG_S = 30.0


@define(eq=False)
class Wait:
    is_over: bool = False
    given_up: int = 0

    def give_up(self) -> None:
        self.given_up += 1


async def until_given_up(*waits: Wait) -> None:
    async with asyncio.timeout(LONG_S):
        while not all(wait.given_up for wait in waits):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_is_not_over_in_time_is_given_up():
    """Once; what is over is left alone."""
    deadlines = Deadlines()
    first, over, last = Wait(), Wait(is_over=True), Wait()
    for wait, seconds in ((first, 0.01), (over, 0.02), (last, 0.05)):
        deadlines.add(wait, seconds)

    await until_given_up(first, last)

    assert (first.given_up, over.given_up, last.given_up) == (1, 0, 1)


async def test_a_wait_that_begins_when_all_others_are_over_has_its_deadline():
    deadlines = Deadlines()
    for _ in range(3):
        wait = Wait()
        deadlines.add(wait, 0.01)
        await until_given_up(wait)


async def test_what_came_while_this_loop_was_blocked_is_in_time():
    """It lay in the socket when the timer was late."""
    deadlines = Deadlines()
    wait = Wait()
    deadlines.add(wait, 0.01)
    asyncio.get_running_loop().call_later(0.02, setattr, wait, "is_over", True)
    sleep(0.1)  # noqa: ASYNC251

    await asyncio.sleep(0.1)

    assert wait.given_up == 0


async def test_a_blocked_loop_does_not_make_it_wait_for_ever():
    deadlines = Deadlines()
    wait = Wait()
    deadlines.add(wait, 0.01)
    sleep(0.1)  # noqa: ASYNC251

    await until_given_up(wait)


async def test_when_closed_nobody_is_told():
    deadlines = Deadlines()
    wait = Wait()
    deadlines.add(wait, 0.01)

    deadlines.close()
    await asyncio.sleep(0.03)

    assert wait.given_up == 0
