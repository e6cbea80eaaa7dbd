"""An Ollama that says what the demo engine says, so that both kinds of backend meet the same expectations.

The engine recites by its weights, this one by its script: the greeting, the call of the first tool that is
offered, the words after a tool's result, and whatever fits a schema.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from attrs import define

from gateway.demo.scripts import ENDLESS, GREETING
from tests.doubles import (
    Received,
    SocketServer,
    answer,
    chat_frame,
    chunk,
    head_of,
    read_request,
    tags_of,
)

WORDS: Final = "recital"
LOOP: Final = "refrain"
VECTORS: Final = "vectors"

# Whoever says this sees it break in the midst of its answer.
FAIL: Final = "Break down!"

_CAPABILITIES: Final = {
    WORDS: ["completion", "tools", "thinking"],
    LOOP: ["completion", "tools"],
    VECTORS: ["embedding"],
}
_HEAD: Final = head_of(200, {"Transfer-Encoding": "chunked", "Content-Type": "application/x-ndjson"})
_DIMENSIONS: Final = 8
# Slow enough that nobody has read it to its end before leaving, whatever the machine is busy with.
_GAP_S: Final = 0.01


@define
class RecitingOllama(SocketServer):
    """Three models: `recital` talks, `refrain` never ends, `vectors` embeds."""

    running: int = 0
    """Endless answers that somebody still listens to."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
            if request.target == "/api/chat" and _model_of(request) == LOOP:
                await self._recite_for_ever(reader, writer)
            else:
                await _answered(request)(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _recite_for_ever(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        try:
            writer.write(_HEAD)
            while not reader.at_eof():
                writer.write(chunk(chat_frame(f"{ENDLESS.answer} ")))
                await writer.drain()
                await asyncio.sleep(_GAP_S)
        finally:
            self.running -= 1


def vector_of(text: str) -> list[float]:
    """Of length one, and the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]
    length = sum(byte * byte for byte in digest) ** 0.5
    return [byte / length for byte in digest]


def _model_of(request: Received) -> str:
    return str(request.json().get("model", "")).partition(":")[0]


def _answered(request: Received) -> Any:
    match request.target:
        case "/api/tags":
            return answer(200, {"models": [tags_of(f"{name}:latest")["models"][0] for name in _CAPABILITIES]})
        case "/api/show":
            return answer(200, _shown(_model_of(request)))
        case "/api/ps":
            return answer(200, {"models": []})
        case "/api/embed":
            texts = request.json()["input"]
            inputs = [texts] if isinstance(texts, str) else texts
            vectors = [vector_of(text) for text in inputs]
            return answer(200, {"model": VECTORS, "embeddings": vectors, "prompt_eval_count": len(inputs)})
        case "/api/chat" | "/api/generate":
            return _said(request)
    return answer(404, {"error": "not found"})


def _shown(model: str) -> dict[str, Any]:
    known = {"general.architecture": "llama", "llama.context_length": 131_072}
    return {"model_info": known, "capabilities": _CAPABILITIES[model]}


def _said(request: Received) -> Any:
    body = request.json()
    if FAIL in request.body.decode():
        return _streamed([_framed(request.target, {"content": "I"}), {"error": "the runner has ended"}])
    pieces, limit = list(_pieces(body)), body["options"]["num_predict"]
    spoken = pieces[:limit]
    if not body["stream"]:
        spoken = [{name: "".join(one.get(name, "") for one in spoken) for name in ("content", "thinking")}]
        spoken[0] |= {"tool_calls": pieces[-1]["tool_calls"]} if "tool_calls" in pieces[-1] else {}
    frames = [_framed(request.target, piece) for piece in spoken]
    if body.get("logprobs"):
        frames = [frame | {"logprobs": [_logprob(body.get("top_logprobs", 0))]} for frame in frames]
    frames[-1] |= {
        "done": True,
        "done_reason": "stop" if len(pieces) <= limit else "length",
        "prompt_eval_count": 7,
        "eval_count": min(len(pieces), limit),
    }
    return _streamed(frames) if body["stream"] else answer(200, frames[0])


def _framed(target: str, piece: dict[str, Any]) -> dict[str, Any]:
    frame = chat_frame()
    if target == "/api/generate":
        del frame["message"]
        return frame | {"response": piece["content"]}
    return frame | {"message": {"role": "assistant", **piece}}


def _pieces(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is said, as it is streamed."""
    last = body.get("messages", [{"role": "user"}])[-1]
    if body.get("think"):
        yield {"content": "", "thinking": "What do I say?"}
    if last["role"] == "tool":
        text = GREETING.tool_answer
    elif body.get("tools"):
        yield {"content": "", "tool_calls": [{"function": _call_of(body["tools"][0]["function"])}]}
        return
    elif body.get("format"):
        text = json.dumps(_fitting(body["format"]))
    else:
        text = GREETING.answer
    for word in re.findall(r"\S+\s*", text):
        yield {"content": word}


def _logprob(top: int) -> dict[str, Any]:
    token = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}
    return token | ({"top_logprobs": [token] * top} if top else {})


def _call_of(function: dict[str, Any]) -> dict[str, Any]:
    if function["name"] == "get_weather":
        return {"name": "get_weather", "arguments": {"city": "Paris"}}
    return {"name": function["name"], "arguments": _fitting(function["parameters"])}


def _fitting(schema: Any) -> Any:
    """The shortest value that a schema allows, its strings filled with the greeting."""
    if schema == "json":
        return {}
    match schema["type"]:
        case "object":
            return {name: _fitting(part) for name, part in schema["properties"].items()}
        case "string":
            return GREETING.answer
        case "boolean":
            return False
    raise NotImplementedError(schema)


def _streamed(frames: list[dict[str, Any]]) -> Any:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        for frame in frames:
            writer.write(chunk(frame))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return script
