"""Log probabilities: items in OpenAI's shape with all four keys, as its clients demand."""

from itertools import zip_longest
from typing import Any, Final

from gateway.errors import BackendFailed
from gateway.model import JsonObject

# One for each token. No model writes as many at once, and reading more would make all other callers wait.
MAX_ITEMS: Final = 100_000
# As many as Ollama, vLLM and OpenAI give at most.
MAX_ALTERNATIVES: Final = 20


def complete(item: JsonObject, top: int | None = MAX_ALTERNATIVES) -> JsonObject:
    """The item with token, logprob, bytes and top_logprobs, the latter cut to `top`; other keys left out."""
    alternatives = item.get("top_logprobs")
    listed = alternatives[:top] if isinstance(alternatives, list) else []
    return _entry(item) | {"top_logprobs": [_entry(entry) for entry in listed if isinstance(entry, dict)]}


def native_items(logprobs: Any) -> tuple[JsonObject, ...]:
    """The items of Ollama's list, complete. Raises BackendFailed for a list without end."""
    return tuple(complete(item) for item in _bounded(logprobs) if isinstance(item, dict))


def chat_items(logprobs: Any) -> tuple[JsonObject, ...]:
    """The items of a choice's `logprobs`: those of a chat, or of a completion in its elder shape of lists.

    Raises BackendFailed for a list without end.
    """
    if not isinstance(logprobs, dict):
        return ()
    content = logprobs.get("content")
    if isinstance(content, list):
        return native_items(content)
    return _from_lists(logprobs)


def _from_lists(logprobs: JsonObject) -> tuple[JsonObject, ...]:
    """`tokens`, `token_logprobs` and `top_logprobs` (text → logprob) stand beside each other."""
    tokens, values, tops = (
        _bounded(logprobs.get(name)) for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    return tuple(
        complete({"token": token, "logprob": value, "top_logprobs": _alternatives(top)})
        for token, value, top in zip_longest(tokens, values[: len(tokens)], tops[: len(tokens)])
    )


def _alternatives(top: Any) -> list[JsonObject]:
    if not isinstance(top, dict):
        return []
    return [{"token": token, "logprob": logprob} for token, logprob in top.items()]


def _bounded(items: Any) -> list[Any]:
    if not isinstance(items, list):
        return []
    if len(items) > MAX_ITEMS:
        raise BackendFailed("The model's server sent log probabilities without end.")
    return items


def _entry(item: JsonObject) -> JsonObject:
    token, logprob = item.get("token"), item.get("logprob")
    text = token if isinstance(token, str) else ""
    # Some servers leave the bytes out; null is for tokens that have none of their own.
    given = item.get("bytes", ())
    code = given if given is None or _are_bytes(given) else list(text.encode())
    number = logprob if isinstance(logprob, int | float) else 0.0
    return {"token": text, "logprob": number, "bytes": code}


def _are_bytes(value: Any) -> bool:
    return isinstance(value, list) and all(type(byte) is int for byte in value)
