"""Loading a model without asking it anything, as far as its server can: for operators, never for callers."""

from typing import Final

import orjson
from attrs import evolve

from gateway.errors import BackendFailed
from gateway.formats.chat import Sampling, UpstreamRequest
from gateway.formats.ollama.options import write_options
from gateway.model import ModelCard

# What is said to servers that load a model only to answer: they stop after a token.
_WORD: Final = "Hi"
_MAX_SENTENCE_CHARACTERS: Final = 300


def load_request(
    kind: str, card: ModelCard, sampling: Sampling, keep_alive_s: float | None
) -> UpstreamRequest:
    """What has a backend of this kind load the model, with the context that requests will ask for.

    Ollama loads for a call without messages; for a model that only makes vectors, of no input. Others are
    asked for one token.
    """
    if kind != "ollama":
        message = {"role": "user", "content": _WORD}
        body = {"model": card.name, "messages": [message], "max_tokens": 1, "stream": False}
        return UpstreamRequest("/v1/chat/completions", body)
    is_chat = card.capabilities is None or "completion" in card.capabilities
    options = write_options(evolve(Sampling(), num_ctx=sampling.num_ctx))
    body = {"model": card.name, "stream": False, **({"messages": []} if is_chat else {"input": []})}
    body |= {"options": options} if options else {}
    body |= {} if keep_alive_s is None else {"keep_alive": keep_alive_s}
    return UpstreamRequest("/api/chat" if is_chat else "/api/embed", body)


def check_loaded(status: int, body: bytes) -> None:
    """Raise BackendFailed, with what the backend says, unless it has loaded the model."""
    if status == 200:
        return
    try:
        said = orjson.loads(body)["error"]
        said = said["message"] if isinstance(said, dict) else said
    except (orjson.JSONDecodeError, KeyError, TypeError):
        said = ""
    words = "".join(letter for letter in str(said) if letter.isprintable())[:_MAX_SENTENCE_CHARACTERS]
    raise BackendFailed(f"It answered {status}{f': {words}' if words else ''}.")
