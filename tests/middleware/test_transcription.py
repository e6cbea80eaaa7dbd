"""Transcription: of keys that opted in, what was admitted and answered goes to the prompt log."""

import asyncio
from typing import cast

import pytest
from attrs import define, evolve, field

from gateway.formats.chat import ChatCall, Delta, Message
from gateway.formats.transcripts import Transcript
from gateway.middleware.context import exchange_of, open_exchange
from gateway.middleware.transcription import Transcription
from gateway.ports import Spoken
from tests.asgi import PRINCIPAL, exchange, nobody, scope_of

OPTED_IN = evolve(PRINCIPAL, log_prompts_s=3600, prompt_generation=2)
CALL = ChatCall(model="llama3", messages=(Message("user", "Hi"),), stream=False)


@define
class Log:
    kept: list[Spoken] = field(factory=list)

    def keep(self, spoken: Spoken) -> None:
        self.kept.append(spoken)


async def passed(app, **slots) -> Log:
    log, scope = Log(), scope_of("POST", "/api/chat")
    open_exchange(scope, exchange(call=CALL, bytes_in=100, **slots))
    await Transcription(app, prompts=log)(scope, nobody, nobody)
    return log


async def answers(scope, receive, send):
    found = exchange_of(scope)
    if found.transcript is not None:
        found.transcript.hear([Delta("Hello")])


async def test_what_is_said_is_handed_over_with_whose_it_is():
    log = await passed(answers, principal=OPTED_IN, is_admitted=True)

    (spoken,) = log.kept
    assert (spoken.request_id, spoken.tenant_id, spoken.account_id) == ("r1", "t1", "k1")
    assert (spoken.generation, spoken.lives_s) == (2, 3600)
    held = cast(Transcript, spoken.transcript)
    assert spoken.size_bytes == held.held_bytes(100)
    said = spoken.transcript.written()
    assert (said["operation"], said["answers"][0]["content"]) == ("chat", "Hello")


@pytest.mark.parametrize(
    ("principal", "is_admitted"),
    [(PRINCIPAL, True), (OPTED_IN, False), (None, False)],
    ids=["a key that did not opt in", "what takes nothing, as a list", "nobody"],
)
async def test_nothing_else_is(principal, is_admitted: bool):
    log = await passed(answers, principal=principal, is_admitted=is_admitted)

    assert log.kept == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()], ids=["bug", "left"])
async def test_however_it_ends(error: BaseException):
    """What a client that left had heard by then was said."""
    log = Log()

    async def breaks(scope, receive, send):
        raise error

    scope = scope_of("POST", "/api/chat")
    open_exchange(scope, exchange(call=CALL, principal=OPTED_IN, is_admitted=True))
    with pytest.raises(type(error)):
        await Transcription(breaks, prompts=log)(scope, nobody, nobody)

    assert len(log.kept) == 1
