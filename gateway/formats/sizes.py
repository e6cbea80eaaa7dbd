"""How big a prompt is, measured without its tokenizer: one pass over a call.

What is counted is what a template can put before the model; pictures are counted by number. JSON that a
template writes anew is measured as compact JSON: the rule that makes tokens of it allows for how. Texts are
measured in the longest form that a tokenizer may bring them into before it cuts them.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any, Final, Literal

import orjson
from attrs import astuple, evolve

from gateway.accounting import PromptSize
from gateway.formats.chat import (
    Call,
    ChatCall,
    CompletionCall,
    EmbedCall,
    Format,
    GenerateCall,
    Message,
    Tool,
)
from gateway.formats.ollama.schemas import folded
from gateway.formats.plain_messages import Texts
from gateway.rules.prompts import IMAGE_TOKENS

# As things are likely to be: English text has about four bytes to a token, and both ChatML and Llama 3 put
# five tokens around a message.
_BYTES_PER_TOKEN: Final = 4
_TOKENS_AROUND_MESSAGE: Final = 5

# `{"type": "function", "function": {"name": "", "description": "", "parameters": }}`, and a line end.
_TOOL_FRAME_BYTES: Final = 88
# `<tool_call>\n{"name": "", "arguments": }\n</tool_call>\n`, or a call as OpenAI's templates write it.
_CALL_FRAME_BYTES: Final = 88
# Unicode's: composed, and with ligatures, units and the like written out. Most texts are in both as they are.
_FORMS: Final[tuple[Literal["NFC", "NFKC"], ...]] = ("NFC", "NFKC")
# What stands around an input that has no template: a token that begins it and one that ends it.
_MARKS: Final = 2


def size_of(call: Call, own: PromptSize | None = None) -> PromptSize:
    """What a call gives a model to read, with its `own` words (`ModelCard.own`) where it puts them before."""
    match call:
        case ChatCall():
            return _times(call.n, _with_own(_size_of_chat(call), own))
        case GenerateCall():
            return _with_own(_size_of_generate(call), own)
        case CompletionCall():
            return _with_own(_size_of_completions(call), own)
        case EmbedCall():
            return _size_of_inputs(call.inputs)


def likely_tokens(call: ChatCall) -> int:
    """About how many tokens the prompt has, for telling callers; `rules.prompts` bounds what is reserved.

    Images count as much as they may: nobody has looked at their size.
    """
    size = size_of(call)
    of_bytes = ceil((size.text_bytes + size.schema_bytes) / _BYTES_PER_TOKEN)
    return of_bytes + _TOKENS_AROUND_MESSAGE * size.messages + IMAGE_TOKENS * size.images


def runs_of(call: Call, kind: str, capabilities: frozenset[str] | None) -> int:
    """How often a backend of this kind generates up to the bound of the output for one call.

    Never for vectors: no token of theirs is written. Ollama's chat runs twice where a format is asked of a
    model that thinks, or of one of which that is not known (`ModelCard.capabilities`): the first run's
    thinking goes into the second one's prompt and is counted there.
    """
    match call:
        case ChatCall():
            thinks = call.think is not False and (capabilities is None or "thinking" in capabilities)
            return call.n * (2 if kind == "ollama" and call.format is not None and thinks else 1)
        case GenerateCall():
            return 1
        case CompletionCall():
            return len(call.prompts) * call.n
        case EmbedCall():
            return 0


def _times(n: int, size: PromptSize) -> PromptSize:
    return size if n == 1 else PromptSize(*(n * value for value in astuple(size)))


def _with_own(size: PromptSize, own: PromptSize | None) -> PromptSize:
    if own is None or not (own.text_bytes or own.messages):
        return size
    return evolve(
        size,
        text_bytes=size.text_bytes + size.templates * own.text_bytes,
        messages=size.messages + size.templates * own.messages,
    )


def _size_of_chat(call: ChatCall) -> PromptSize:
    text_bytes = schema_bytes = images = 0
    messages = call.messages
    if type(messages) is Texts:
        text_bytes, messages = _bytes_of_texts(messages.contents()), ()
    for message in messages:
        text_bytes += _bytes_of_text(message.content)
        if message.thinking or message.tool_name or message.tool_call_id or message.name:
            text_bytes += _bytes_of_texts(
                (message.thinking, message.tool_name, message.tool_call_id, message.name)
            )
        images += len(message.images)
        if message.tool_calls:
            schema_bytes += _bytes_of_calls(message)
    if call.tools or call.format is not None:
        schema_bytes += sum(map(_bytes_of_tool, call.tools)) + _bytes_of_format(call.format)
    return PromptSize(text_bytes, schema_bytes, len(call.messages), images)


def _size_of_generate(call: GenerateCall) -> PromptSize:
    texts = (call.system or "", call.prompt, call.suffix)
    return PromptSize(
        text_bytes=_bytes_of_texts(texts),
        schema_bytes=_bytes_of_format(call.format),
        messages=sum(map(bool, texts)),
        images=len(call.images),
        tokens=len(call.context) + len(call.tokens) + (_MARKS if call.raw else 0),
        templates=0 if call.raw else 1,
    )


def _size_of_completions(call: CompletionCall) -> PromptSize:
    """Of all prompts together, as often as they are sent; a template may be put around each."""
    inputs = _size_of_inputs(call.prompts)
    prompts = len(call.prompts)
    return PromptSize(
        text_bytes=call.n * (inputs.text_bytes + prompts * _bytes_of_texts((call.suffix,))),
        schema_bytes=call.n * prompts * _bytes_of_format(call.format),
        messages=call.n * prompts * (2 if call.suffix else 1),
        tokens=call.n * inputs.tokens,
        prompts=call.n * prompts,
        templates=0 if call.raw else call.n * prompts,
    )


def _size_of_inputs(inputs: Sequence[str | tuple[int, ...]]) -> PromptSize:
    texts = [one for one in inputs if isinstance(one, str)]
    tokens = sum(len(one) for one in inputs if isinstance(one, tuple))
    return PromptSize(
        text_bytes=sum(max(_bytes_of_texts((text,)), _characters_of_nfd(text)) for text in texts),
        tokens=tokens + _MARKS * len(inputs),
        prompts=len(inputs),
        templates=0,
    )


def _bytes_of_texts(texts: Iterable[str]) -> int:
    return sum(map(_bytes_of_text, texts))


def _bytes_of_text(text: str) -> int:
    """In UTF-8. What is ASCII, as most big texts are, is not copied to be counted."""
    return len(text) if text.isascii() else _bytes_of_longest_form(text)


def _bytes_of_longest_form(text: str) -> int:
    """Tokenizers of T5's and XLM-R's kind write out a ligature of 3 bytes in 33, Qwen's a note of 4 in 12."""
    others = (form for form in _FORMS if not unicodedata.is_normalized(form, text))
    return max(map(_bytes_of_utf8, (text, *(unicodedata.normalize(form, text) for form in others))))


def _characters_of_nfd(text: str) -> int:
    """BERT's tokenizers take the accents off their letters: some of 2 bytes are 3 characters then."""
    return len(unicodedata.normalize("NFD", text))


def _bytes_of_utf8(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _bytes_of_calls(message: Message) -> int:
    return sum(
        _CALL_FRAME_BYTES + _bytes_of_texts((call.id, call.name)) + _bytes_of_json(call.arguments)
        for call in message.tool_calls
    )


def _bytes_of_tool(tool: Tool) -> int:
    """Ollama is sent its parameters folded, which may be longer than they were."""
    texts = _bytes_of_texts((tool.name, tool.description))
    parameters = max(map(_bytes_of_json, (tool.parameters, folded(tool.parameters))))
    return _TOOL_FRAME_BYTES + texts + parameters


def _bytes_of_format(form: Format | None) -> int:
    """Some templates tell the model its schema; Ollama's don't."""
    if form is None or form.schema is None:
        return 0
    return _bytes_of_json(form.schema) + _bytes_of_texts((form.description,))


def _bytes_of_json(value: Any) -> int:
    text = orjson.dumps(value)
    length = len(text) if text.isascii() else _bytes_of_longest_form(text.decode())
    # Go writes these three as `\u003c`, six bytes for one.
    return length + 5 * (text.count(b"<") + text.count(b">") + text.count(b"&"))
