"""What backends say when they fail, in either protocol: a sentence for the caller, without their insides."""

import re
from typing import Any, Final

from attrs import frozen

from gateway.errors import ContextLengthExceeded, InvalidRequest

_MAX_READ_CHARACTERS: Final = 2_000
_MAX_SENTENCE_CHARACTERS: Final = 300

# What is left out of a backend's words, in this order.
_INSIDES: Final = (
    # Ollama's own long form of a name: the name alone is what the caller knows.
    (re.compile(r"registry\.ollama\.ai/(?:library/)?"), ""),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "…"),
    # Paths of files, of Unix and of Windows.
    (re.compile(r"(?<![\w.…/])~?(?:/[\w.@+~-]+){2,}/?"), "…"),
    (re.compile(r"\b[A-Za-z]:\\\S+"), "…"),
    # Addresses: an IP, a name with a port, IPv6 in brackets.
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "…"),
    (re.compile(r"\[[0-9a-fA-F:]{2,}\](?::\d+)?"), "…"),
    (re.compile(r"\b[A-Za-z][\w.-]*:\d{4,5}\b"), "…"),
    # Digests of blobs, and pointers.
    (re.compile(r"\b(?:sha256[:-])?[0-9a-fA-F]{40,}\b|\b0x[0-9a-fA-F]+\b"), "…"),
)

# llama.cpp, also within Ollama. vLLM: … is not a multimodal model.
_NO_MEDIA: Final = re.compile(
    r"(?:image|audio|video) input is not supported|does not support (?:vision|multimodal|images?\b)"
    r"|is not a multimodal model",
    re.IGNORECASE,
)
# Ollama: this model does not support embeddings. llama.cpp: This server does not support embeddings.
# vLLM: The model does not support Embeddings API.
_NO_EMBEDDINGS: Final = re.compile(r"does not support embeddings?\b", re.IGNORECASE)


@frozen
class Complaint:
    """What a backend said, taken out of its wrappings. The counts are there when a prompt was too long."""

    message: str = ""
    type: str = ""
    code: str | int = ""
    prompt_tokens: int | None = None
    context_tokens: int | None = None


def complaint_of(value: Any) -> Complaint:
    """A bare sentence, or an object with `message`, `type` and `code`. What can't be read is left empty."""
    if isinstance(value, str):
        return Complaint(value[:_MAX_READ_CHARACTERS])
    if not isinstance(value, dict):
        return Complaint()
    code = value.get("code")
    return Complaint(
        message=_text(value.get("message"))[:_MAX_READ_CHARACTERS],
        type=_text(value.get("type")),
        code=code if type(code) is int else _text(code),
        prompt_tokens=_count(value.get("n_prompt_tokens")),
        context_tokens=_count(value.get("n_ctx")),
    )


def context_exceeded(complaint: Complaint) -> ContextLengthExceeded:
    """With both counts where the backend gave both."""
    counts = ""
    if complaint.prompt_tokens is not None and complaint.context_tokens is not None:
        counts = f" ({complaint.prompt_tokens} tokens, and the context has {complaint.context_tokens})"
    return ContextLengthExceeded(
        f"The prompt is longer than the model's context{counts}; shorten it.", param="messages"
    )


def unfit(complaint: Complaint) -> InvalidRequest | None:
    """What this model can't do. Some answer 500 or 501 there, but it is the request that is wrong."""
    if _NO_MEDIA.search(complaint.message):
        return InvalidRequest("This model takes text only: leave out images and sounds.", param="messages")
    if _NO_EMBEDDINGS.search(complaint.message):
        return InvalidRequest("This model makes no embeddings; ask one that does.", param="model")
    return None


def sentence_of(what: str, complaint: Complaint) -> str:
    """What happened, in our words, and after a colon what the backend says about it, tamed."""
    said = tame(complaint.message)
    return f"{what}: {said}" if said else f"{what}."


def tame(text: str) -> str:
    """One bounded line of a backend's words, without addresses, paths, digests and stack traces."""
    line = text.strip().partition("\n")[0]
    line = "".join(character if character.isprintable() else " " for character in line)
    for pattern, replacement in _INSIDES:
        line = pattern.sub(replacement, line)
    return line if len(line) <= _MAX_SENTENCE_CHARACTERS else line[:_MAX_SENTENCE_CHARACTERS] + "…"


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
