"""Log probabilities: items in OpenAI's shape with all four keys, as its clients demand."""

from itertools import zip_longest
from typing import Any

from gateway.model import JsonObject


def complete(item: JsonObject, top: int | None = None) -> JsonObject:
    """The item with token, logprob, bytes and top_logprobs, the latter cut to `top`; other keys left out."""
    alternatives = item.get("top_logprobs")
    listed = (
        [entry for entry in alternatives if isinstance(entry, dict)] if isinstance(alternatives, list) else []
    )
    return _entry(item) | {"top_logprobs": [_entry(entry) for entry in listed[:top]]}


def chat_items(logprobs: Any) -> tuple[JsonObject, ...]:
    """The items of a choice's `logprobs`: those of a chat, or of a completion in its elder shape of lists."""
    if not isinstance(logprobs, dict):
        return ()
    content = logprobs.get("content")
    if isinstance(content, list):
        return tuple(complete(item) for item in content if isinstance(item, dict))
    return _from_lists(logprobs)


def _from_lists(logprobs: JsonObject) -> tuple[JsonObject, ...]:
    """`tokens`, `token_logprobs` and `top_logprobs` (text → logprob) stand beside each other."""
    tokens, values, tops = (
        column if isinstance(column := logprobs.get(name), list) else []
        for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    return tuple(
        complete({"token": token, "logprob": value, "top_logprobs": _alternatives(top)})
        for token, value, top in zip_longest(tokens, values[: len(tokens)], tops[: len(tokens)])
    )


def _alternatives(top: Any) -> list[JsonObject]:
    if not isinstance(top, dict):
        return []
    return [{"token": token, "logprob": logprob} for token, logprob in top.items()]


def _entry(item: JsonObject) -> JsonObject:
    token, logprob = item.get("token"), item.get("logprob")
    text = token if isinstance(token, str) else ""
    # Some servers leave the bytes out; null is for tokens that have none of their own.
    code = item["bytes"] if isinstance(item.get("bytes"), list) else list(text.encode())
    number = logprob if isinstance(logprob, int | float) else 0.0
    return {"token": text, "logprob": number, "bytes": code}
