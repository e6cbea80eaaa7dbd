"""Which translator reads and writes what: surfaces by operation, backends by kind. Tables, no logic."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import frozen

from gateway.errors import GatewayError
from gateway.formats import anthropic, ollama, openai, responses, sse
from gateway.formats.chat import (
    AnswerReader,
    AnswerStamp,
    AnswerWriter,
    Call,
    ChatCall,
    EmbedCall,
    Event,
    Part,
    UpstreamRequest,
    as_chat,
)
from gateway.model import JsonObject, Operation


@frozen
class SurfaceFormat:
    """How callers of one operation speak. `heartbeat` says nothing, and keeps a silent stream open.

    `prompt` is the field of the body that has what the model reads. Without a `writer` nothing is streamed.
    """

    read: Callable[[JsonObject], Call]
    # Any: each is given what its own `read` made.
    writer: Callable[[AnswerStamp, Any], AnswerWriter] | None
    write_whole: Callable[[Iterable[Event], AnswerStamp, Any], bytes]
    heartbeat: bytes | None = None
    prompt: str = "messages"


@frozen
class Upstream:
    """One call in a backend's own words, and how to read what it answers.

    `read_whole` is there when the answer comes in one piece; else it is a stream, for the `reader`.
    `or_cut` is what to send where the prompt is refused as too long, and its caller wants it cut.
    """

    request: UpstreamRequest
    reader: Callable[[], AnswerReader] | None
    read_error: Callable[[int, bytes], GatewayError]
    read_whole: Callable[[bytes], list[Event]] | None = None
    or_cut: UpstreamRequest | None = None

    @property
    def is_whole(self) -> bool:
        """The answer comes in one piece: nothing is heard of it before it is complete."""
        return self.reader is None or self.read_whole is not None


SURFACES: Final[dict[Operation, SurfaceFormat]] = {
    Operation.CHAT: SurfaceFormat(ollama.read_chat, ollama.ChatWriter, ollama.write_chat_answer),
    Operation.GENERATE: SurfaceFormat(
        ollama.read_generate, ollama.GenerateWriter, ollama.write_generate_answer, prompt="prompt"
    ),
    Operation.EMBED: SurfaceFormat(ollama.read_embed, None, ollama.write_embed_answer, prompt="input"),
    Operation.LEGACY_EMBEDDINGS: SurfaceFormat(
        ollama.read_embeddings, None, ollama.write_embeddings_answer, prompt="prompt"
    ),
    Operation.CHAT_COMPLETIONS: SurfaceFormat(
        openai.read_chat, openai.ChatWriter, openai.write_chat_answer, heartbeat=sse.COMMENT
    ),
    Operation.COMPLETIONS: SurfaceFormat(
        openai.read_completion,
        openai.CompletionWriter,
        openai.write_completion_answer,
        heartbeat=sse.COMMENT,
        prompt="prompt",
    ),
    Operation.EMBEDDINGS: SurfaceFormat(
        openai.read_embeddings, None, openai.write_embeddings_answer, prompt="input"
    ),
    Operation.RESPONSES: SurfaceFormat(
        responses.read_response,
        responses.ResponseWriter,
        responses.write_response,
        heartbeat=sse.COMMENT,
        prompt="input",
    ),
    Operation.MESSAGES: SurfaceFormat(
        anthropic.read_chat, anthropic.ChatWriter, anthropic.write_chat_answer, heartbeat=anthropic.PING
    ),
}

# How the bodies of all that ask a model are read.
READERS: Final[dict[Operation, Callable[[JsonObject], Call]]] = {
    **{operation: surface.read for operation, surface in SURFACES.items()},
    Operation.COUNT_TOKENS: anthropic.read_counted,
}


def upstream_of(kind: str, call: Part, model: str) -> Upstream:
    """A call, or a part of one, for a backend of this kind; `model` as that backend writes it.

    Raises UnsupportedField.
    """
    return _TO[kind](call, model)


def _to_ollama(call: Part, model: str) -> Upstream:
    """Ollama stops when its client leaves, so a plain call is a plain call: a third of a stream's work."""
    request: UpstreamRequest
    reader: Callable[[], AnswerReader] | None
    if isinstance(call, ChatCall):
        request, reader, whole = ollama.write_chat(call, model), ollama.ChatReader, ollama.read_chat_answer
    elif isinstance(call, EmbedCall):
        request, reader, whole = ollama.write_embed(call, model), None, ollama.read_embed_answer
    else:
        request = ollama.write_generate(call, model)
        reader, whole = ollama.GenerateReader, ollama.read_generate_answer
    read_whole = None if call.stream else whole
    return Upstream(request, reader, ollama.read_error, read_whole, _or_cut(call, request, ollama.CUT))


def _to_openai(call: Part, model: str) -> Upstream:
    """A stream where there is one: llama.cpp notices only when it writes that its client left (measured)."""
    reader: Callable[[], AnswerReader]
    if isinstance(call, ChatCall):
        request, reader = openai.write_chat(call, model), openai.ChatReader
    elif isinstance(call, EmbedCall):
        request = openai.write_embeddings(call, model)
        or_cut = _or_cut(call, request, openai.CUT)
        return Upstream(request, None, openai.read_error, openai.read_embeddings_answer, or_cut)
    elif openai.is_completion(call):
        request, reader = openai.write_completion(call, model), openai.CompletionReader
    else:
        request, reader = openai.write_chat(as_chat(call), model), openai.ChatReader
    request.body.update(openai.STREAMED)
    return Upstream(request, reader, openai.read_error)


def _or_cut(call: Part, request: UpstreamRequest, cut: JsonObject) -> UpstreamRequest | None:
    return UpstreamRequest(request.path, request.body | cut) if call.truncate else None


_TO: Final = {"ollama": _to_ollama, "openai": _to_openai}
