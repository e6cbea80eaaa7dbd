"""The tokenizers of backends: asked how many tokens a prompt has, and not waited for beyond a moment."""

import asyncio
from typing import Final

from gateway.errors import BackendFailed, BackendTimeout
from gateway.formats.chat import Call
from gateway.formats.openai.counting import Question, question_of
from gateway.formats.parts import parts_of
from gateway.formats.translation import upstream_of
from gateway.middleware.intake import is_large, worked_on
from gateway.model import Engine, Exchange
from gateway.ports import Backend, Clock

# For a place, and for each answer. llama.cpp counts 10 KB in 5 ms, 1 MB in 0.3 s (measured).
TIMEOUT_S: Final = 1.0
# A backend that said nothing is left alone for a while, so that not every caller waits for it.
REST_S: Final = 10.0
# At the same time, of one backend: its threads are there to answer.
_ABREAST: Final = 4
_NO_SUCH_ROUTE: Final = frozenset({404, 405})


class Tokenizers:
    """Counts prompts, each by the very call that would be sent to be answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places: dict[str, asyncio.Semaphore] = {}
        self._rest_until: dict[str, float] = {}
        self._elder: set[str] = set()

    async def count(self, exchange: Exchange, engine: Engine) -> int | None:
        """None where it can't be had, or not now. Raises UnsupportedField, as sending the call would."""
        call, (backend, card) = exchange.call, exchange.target
        if self._clock.elapsed() < self._rest_until.get(backend.name, 0.0):
            return None
        question = await worked_on(exchange.is_heavy, _question_of, engine, backend.kind, call, card.name)
        if question is None:
            return None
        place = self._places.setdefault(backend.name, asyncio.Semaphore(_ABREAST))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await place.acquire()
        except TimeoutError:
            return None
        try:
            return await self._asked(question, backend, exchange.request_id)
        except BackendTimeout:
            self._rest_until[backend.name] = self._clock.elapsed() + REST_S
            return None
        except BackendFailed:
            return None
        finally:
            place.release()

    async def _asked(self, question: Question, backend: Backend, request_id: str) -> int | None:
        while True:
            if question.otherwise and backend.name in self._elder:
                question = question.otherwise
            status, body = await backend.ask(question.request, request_id=request_id, timeout_s=TIMEOUT_S)
            if status in _NO_SUCH_ROUTE and question.otherwise:
                self._elder.add(backend.name)
                continue
            if status != 200:
                return None
            meaning = await worked_on(is_large(len(body)), question.read, body)
            if isinstance(meaning, int):
                return meaning
            question = meaning


def _question_of(engine: Engine, kind: str, call: Call, model: str) -> Question | None:
    """None for what is sent in several parts."""
    parts = parts_of(call)
    return question_of(engine, upstream_of(kind, parts[0], model).request) if len(parts) == 1 else None
