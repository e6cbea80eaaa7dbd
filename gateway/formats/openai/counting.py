"""How servers of kind openai are asked how many tokens a prompt has: the same call, put to their tokenizers.

llama.cpp reads the whole body of a chat as if it were to be answered, or, in elder builds, writes the prompt
out and makes tokens of that. vLLM takes messages, tools and what its template is told beside them.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson
from attrs import frozen

from gateway.errors import BackendFailed
from gateway.formats.chat import UpstreamRequest
from gateway.formats.openai.requests import CHAT_PATH, COMPLETION_PATH
from gateway.model import Engine, JsonObject

_INPUT_TOKENS_PATH: Final = "/v1/chat/completions/input_tokens"
_APPLY_TEMPLATE_PATH: Final = "/apply-template"
_TOKENIZE_PATH: Final = "/tokenize"


@frozen
class Question:
    """A request, and what its answer means: the count, or what to ask next.

    Where the server has no such route, `otherwise` is to be asked. Reading raises BackendFailed.
    """

    request: UpstreamRequest
    read: "Callable[[bytes], int | Question]"
    otherwise: "Question | None" = None


def question_of(engine: Engine, request: UpstreamRequest) -> Question | None:
    """What to ask of this engine to learn how long the prompt of a request is.

    None for what is neither a chat nor a completion of a text: nobody's tokenizer is asked for those.
    """
    is_chat = request.path == CHAT_PATH
    if not is_chat and not (request.path == COMPLETION_PATH and isinstance(request.body["prompt"], str)):
        return None
    match engine:
        case Engine.LLAMA_CPP if is_chat:
            return Question(
                UpstreamRequest(_INPUT_TOKENS_PATH, request.body),
                _read_input_tokens,
                otherwise=Question(UpstreamRequest(_APPLY_TEMPLATE_PATH, request.body), _read_prompt),
            )
        case Engine.LLAMA_CPP:
            return _tokens_of(request.body["prompt"])
        case Engine.VLLM:
            body = _chat_for_vllm(request.body) if is_chat else _named(request.body, "prompt")
            return Question(UpstreamRequest(_TOKENIZE_PATH, body), _read_count)


def _chat_for_vllm(body: JsonObject) -> JsonObject:
    """The effort is a word to the template, as it is in a chat."""
    kwargs = body.get("chat_template_kwargs", {})
    if effort := body.get("reasoning_effort"):
        kwargs = kwargs | {"reasoning_effort": effort}
    named = _named(body, "messages", "tools", "add_generation_prompt", "continue_final_message")
    return named | ({"chat_template_kwargs": kwargs} if kwargs else {})


def _named(body: JsonObject, *names: str) -> JsonObject:
    return {name: body[name] for name in ("model", *names) if name in body}


def _tokens_of(prompt: str) -> Question:
    """As llama.cpp reads a prompt: with the token that begins it; a template's markers are tokens too."""
    body = {"content": prompt, "add_special": True, "parse_special": True}
    return Question(UpstreamRequest(_TOKENIZE_PATH, body), _read_tokens)


def _read_input_tokens(body: bytes) -> int:
    return _whole(_field(body, "input_tokens"))


def _read_count(body: bytes) -> int:
    return _whole(_field(body, "count"))


def _read_prompt(body: bytes) -> Question:
    prompt = _field(body, "prompt")
    if not isinstance(prompt, str):
        raise _unreadable()
    return _tokens_of(prompt)


def _read_tokens(body: bytes) -> int:
    tokens = _field(body, "tokens")
    if not isinstance(tokens, list):
        raise _unreadable()
    return len(tokens)


def _field(body: bytes, name: str) -> Any:
    try:
        return orjson.loads(body)[name]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise _unreadable() from None


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise _unreadable()
    return value


def _unreadable() -> BackendFailed:
    return BackendFailed("The model's server does not tell how long a prompt is.")
