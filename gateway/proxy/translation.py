"""Which translator reads and writes what: surfaces by operation, backends by kind. Tables, no logic."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import frozen

from gateway.errors import GatewayError
from gateway.formats import ollama, openai, sse
from gateway.formats.chat import (
    AnswerReader,
    AnswerStamp,
    AnswerWriter,
    ChatCall,
    Event,
    GenerateCall,
    UpstreamRequest,
    as_chat,
)
from gateway.model import JsonObject, Operation

Call = ChatCall | GenerateCall


@frozen
class SurfaceFormat:
    """How callers of one operation speak. `heartbeat` is a comment that keeps a silent stream open."""

    read: Callable[[JsonObject], Call]
    # Any: each is given what its own `read` made.
    writer: Callable[[AnswerStamp, Any], AnswerWriter]
    write_whole: Callable[[Iterable[Event], AnswerStamp, Any], bytes]
    heartbeat: bytes | None = None


@frozen
class Upstream:
    """One call in a backend's own words, and how to read what it answers."""

    request: UpstreamRequest
    reader: Callable[[], AnswerReader]
    read_whole: Callable[[bytes], list[Event]]
    read_error: Callable[[int, bytes], GatewayError]


SURFACES: Final[dict[Operation, SurfaceFormat]] = {
    Operation.CHAT: SurfaceFormat(ollama.read_chat, ollama.ChatWriter, ollama.write_chat_answer),
    Operation.GENERATE: SurfaceFormat(
        ollama.read_generate, ollama.GenerateWriter, ollama.write_generate_answer
    ),
    Operation.CHAT_COMPLETIONS: SurfaceFormat(
        openai.read_chat, openai.ChatWriter, openai.write_chat_answer, heartbeat=sse.COMMENT
    ),
}


def upstream_of(kind: str, call: Call, model: str) -> Upstream:
    """The call for a backend of this kind; `model` as that backend writes it. Raises UnsupportedField."""
    return _TO[kind](call, model)


def _to_ollama(call: Call, model: str) -> Upstream:
    if isinstance(call, ChatCall):
        request = ollama.write_chat(call, model)
        return Upstream(request, ollama.ChatReader, ollama.read_chat_answer, ollama.read_error)
    request = ollama.write_generate(call, model)
    return Upstream(request, ollama.GenerateReader, ollama.read_generate_answer, ollama.read_error)


def _to_openai(call: Call, model: str) -> Upstream:
    if isinstance(call, GenerateCall) and openai.is_completion(call):
        request = openai.write_completion(call, model)
        return Upstream(request, openai.CompletionReader, openai.read_completion_answer, openai.read_error)
    chat = call if isinstance(call, ChatCall) else as_chat(call)
    request = openai.write_chat(chat, model)
    return Upstream(request, openai.ChatReader, openai.read_chat_answer, openai.read_error)


_TO: Final = {"ollama": _to_ollama, "openai": _to_openai}
