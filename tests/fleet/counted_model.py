"""A model whose every token is known: an Ollama that does what each prompt orders, and remembers it by id.

So what a request has truly cost is counted here, at the backend, and nowhere in the gateway.
"""

import asyncio
import json
from typing import Any, Final

from attrs import asdict, define, evolve, field, frozen

from tests.doubles import SocketServer, chat_frame, chunk, head_of, read_request, tags_of

MODEL: Final = "counted:latest"
# Of another backend, which misbehaves.
MAD: Final = "mad:latest"

_STREAM: Final = {"Transfer-Encoding": "chunked", "Content-Type": "application/x-ndjson"}


@frozen
class Order:
    """What a prompt asks the model for: it is the prompt, as JSON."""

    tokens: int = 8
    """Of output; fewer when the gateway sends a smaller bound."""
    gap_s: float = 0.0
    """Before each of them."""
    hold: int | None = None
    """After so many it says nothing more, until its caller has gone; -1: not even that it answers."""
    label: str = ""
    """By which a test finds what was done, where it does not know the id."""
    model: str = MODEL

    @property
    def prompt(self) -> str:
        return json.dumps(asdict(self))


@define
class Work:
    """What the model did for one request. `tokens` are those that it wrote to the socket."""

    label: str
    prompt_tokens: int
    tokens: int = 0
    is_held: bool = False
    is_done: bool = False


@define
class CountedModel(SocketServer):
    """`works` is what was done, by the id that the gateway gave the request."""

    works: dict[str, Work] = field(factory=dict)
    repeated: list[str] = field(factory=list)
    """Ids that came more than once: none, or somebody pays twice."""

    def cost_of(self, request_id: str) -> int:
        """Tokens, prompt and output; nothing for a request that never came."""
        work = self.works.get(request_id)
        return work.prompt_tokens + work.tokens if work else 0

    def labelled(self, label: str) -> list[Work]:
        return [work for work in list(self.works.values()) if work.label == label]

    def holds(self, label: str) -> bool:
        return any(work.is_held for work in self.labelled(label))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
            if request.target == "/api/chat":
                await self._chat(request.headers["x-request-id"], request.json(), reader, writer)
            elif request.target == "/api/tags":
                writer.write(_whole(tags_of(MODEL)))
            else:
                writer.write(_whole({"error": "not found"}, 404))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _chat(
        self, request_id: str, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        prompt = body["messages"][-1]["content"]
        order = Order(**json.loads(prompt))
        order = evolve(order, tokens=min(order.tokens, body["options"]["num_predict"]))
        if request_id in self.works:
            self.repeated.append(request_id)
        work = self.works[request_id] = Work(order.label, prompt_tokens=1 + len(prompt) // 3)
        is_stream = body["stream"] and order.hold != -1
        if is_stream:
            writer.write(head_of(200, _STREAM))
        while work.tokens < order.tokens or order.hold is not None:
            if order.hold is not None and work.tokens >= order.hold:
                work.is_held = True
                await reader.read()
            if reader.at_eof():
                return
            if order.gap_s:
                await asyncio.sleep(order.gap_s)
            work.tokens += 1
            if is_stream:
                writer.write(chunk(chat_frame("x")))
                await writer.drain()
        work.is_done = True
        end = chat_frame(
            "" if is_stream else "x" * work.tokens,
            done=True,
            prompt_eval_count=work.prompt_tokens,
            eval_count=work.tokens,
        )
        writer.write(chunk(end) + b"0\r\n\r\n" if is_stream else _whole(end))


def _whole(body: object, status: int = 200) -> bytes:
    data = json.dumps(body).encode()
    fields = {"Content-Length": str(len(data)), "Content-Type": "application/json"}
    return head_of(status, fields) + data
