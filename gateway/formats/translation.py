"""Which translator reads and writes what: surfaces by operation, backends by kind. Tables, no logic."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import evolve, frozen

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
    """One call in a backend's own words, and how to read what it answers.

    `read_whole` is there when the answer comes in one piece; else it is a stream, for the `reader`.
    """

    request: UpstreamRequest
    reader: Callable[[], AnswerReader]
    read_error: Callable[[int, bytes], GatewayError]
    read_whole: Callable[[bytes], list[Event]] | None = None


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
    """Ollama stops when its client leaves, so a plain call is a plain call: a third of a stream's work."""
    if isinstance(call, ChatCall):
        whole = None if call.stream else ollama.read_chat_answer
        return Upstream(ollama.write_chat(call, model), ollama.ChatReader, ollama.read_error, whole)
    whole = None if call.stream else ollama.read_generate_answer
    return Upstream(ollama.write_generate(call, model), ollama.GenerateReader, ollama.read_error, whole)


def _to_openai(call: Call, model: str) -> Upstream:
    """Always a stream: llama.cpp notices that its client has left only when it writes (measured)."""
    call = evolve(call, stream=True)
    if isinstance(call, GenerateCall) and openai.is_completion(call):
        return Upstream(openai.write_completion(call, model), openai.CompletionReader, openai.read_error)
    chat = call if isinstance(call, ChatCall) else as_chat(call)
    return Upstream(openai.write_chat(chat, model), openai.ChatReader, openai.read_error)


_TO: Final = {"ollama": _to_ollama, "openai": _to_openai}
