"""What becomes of the fields inside messages, items and tools: found by trying them out, for docs/API.md.

Each is given in a value of the field that it stands in, and what goes to a backend is compared with what goes
there for the same value without it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from attrs import field, frozen

from gateway.errors import InvalidRequest
from gateway.formats.parts import parts_of
from gateway.formats.translation import READERS, upstream_of
from gateway.model import JsonObject, Operation
from scripts.api_samples import LEAST, PNG, SCHEMA
from scripts.api_sent import FREE, SENT

_KINDS: Final = ("ollama", "openai")
_SHAPES: Final = {(sent.kind, sent.path): sent.shape for sent in SENT}
_MOST_PATHS: Final = 3


@frozen
class Inner:
    """Two values of the field that the inner one stands in: without it and with it."""

    without: Any
    given: Any
    beside: JsonObject = field(factory=dict)


def _grown(without: JsonObject, **given: Any) -> Inner:
    return Inner([without], [without | given])


def _parts(role: str, part: JsonObject) -> Inner:
    text = {"type": "text", "text": "Hi"} if role == "user" else {"type": "output_text", "text": "Hi"}
    return Inner([{"role": role, "content": [text]}], [{"role": role, "content": [text, part]}])


_USER: Final = {"role": "user", "content": "Hi"}
_SAID: Final = {"role": "assistant", "content": "Hi"}
_MP3: Final = "SUQzBA=="
_URL: Final = f"data:image/png;base64,{PNG}"
_CALL: Final = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
_TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
_FLAT: Final = {"type": "function", "name": "f", "parameters": SCHEMA}
_CLAUDE: Final = {"name": "f", "input_schema": SCHEMA}
_OTHER_SCHEMA: Final = {"type": "object", "properties": {"y": {"type": "string"}}}


def _called(**function: Any) -> JsonObject:
    return {"role": "assistant", "tool_calls": [_CALL | {"function": _CALL["function"] | function}]}  # type: ignore[operator]


def _tool(**function: Any) -> Inner:
    return Inner([_TOOL], [_TOOL | {"function": _TOOL["function"] | function}])  # type: ignore[operator]


_TOOLS: Final = {
    "tools[].function.description": _tool(description="x"),
    "tools[].function.name": _tool(name="g"),
    "tools[].function.parameters": _tool(parameters=_OTHER_SCHEMA),
    "tools[].type": Inner([_TOOL], [_TOOL | {"type": "web_search"}]),
}
_OPENAI_MESSAGES: Final = {
    "messages[].audio": _grown(_SAID, audio={"id": "x"}),
    "messages[].content": _grown(_USER, content="Ho"),
    "messages[].content[].file": _parts("user", {"type": "file", "file": {"file_id": "x"}}),
    "messages[].content[].image_url": _parts("user", {"type": "image_url", "image_url": {"url": _URL}}),
    "messages[].content[].image_url.detail": Inner(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URL}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URL, "detail": "low"}}]}],
    ),
    "messages[].content[].input_audio": _parts(
        "user", {"type": "input_audio", "input_audio": {"data": _MP3, "format": "mp3"}}
    ),
    "messages[].content[].refusal": _parts("user", {"type": "refusal", "refusal": "No."}),
    "messages[].content[].text": _parts("user", {"type": "text", "text": "Ho"}),
    "messages[].function_call": _grown(_SAID, function_call={"name": "f", "arguments": "{}"}),
    "messages[].name": _grown({"role": "tool", "content": "Hi", "tool_call_id": "x"}, name="f"),
    "messages[].name (of others than tools)": _grown(_USER, name="bob"),
    "messages[].reasoning": _grown(_SAID, reasoning="Hm."),
    "messages[].reasoning_content": _grown(_SAID, reasoning_content="Hm."),
    "messages[].refusal": _grown({"role": "assistant"}, refusal="No."),
    "messages[].role": _grown(_USER, role="developer"),
    "messages[].tool_call_id": _grown({"role": "tool", "content": "Hi"}, tool_call_id="x"),
    "messages[].tool_calls[].function.arguments": Inner([_called()], [_called(arguments='{"x":1}')]),
    "messages[].tool_calls[].function.name": Inner([_called()], [_called(name="g")]),
    "messages[].tool_calls[].id": Inner(
        [_called()], [{"role": "assistant", "tool_calls": [_CALL | {"id": "call_x"}]}]
    ),
    "messages[].… (any other)": _grown(_USER, cache_control={"type": "ephemeral"}),
}
_NATIVE_CALL: Final = {"function": {"name": "f", "arguments": {}}}


def _native_call(**function: Any) -> JsonObject:
    return {"role": "assistant", "tool_calls": [{"function": _NATIVE_CALL["function"] | function}]}


_NATIVE_MESSAGES: Final = {
    "messages[].content": _grown(_USER, content="Ho"),
    "messages[].images": _grown(_USER, images=[PNG]),
    "messages[].role": _grown(_USER, role="system"),
    "messages[].thinking": _grown(_SAID, thinking="Hm."),
    "messages[].tool_call_id": _grown({"role": "tool", "content": "Hi"}, tool_call_id="x"),
    "messages[].tool_calls[].function.arguments": Inner([_native_call()], [_native_call(arguments={"x": 1})]),
    "messages[].tool_calls[].function.index": Inner([_native_call()], [_native_call(index=5)]),
    "messages[].tool_calls[].function.name": Inner([_native_call()], [_native_call(name="g")]),
    "messages[].tool_calls[].id": Inner(
        [_native_call()], [{"role": "assistant", "tool_calls": [_NATIVE_CALL | {"id": "call_x"}]}]
    ),
    "messages[].tool_calls[].type": Inner(
        [_native_call()], [{"role": "assistant", "tool_calls": [_NATIVE_CALL | {"type": "function"}]}]
    ),
    "messages[].tool_name": _grown({"role": "tool", "content": "Hi"}, tool_name="f"),
    "messages[].… (any other)": _grown(_USER, name="bob"),
}


def _block(role: str, without: JsonObject, **given: Any) -> Inner:
    return Inner(
        [{"role": role, "content": [without]}],
        [{"role": role, "content": [without | given]}],
    )


_TEXT: Final = {"type": "text", "text": "Hi"}
_USE: Final = {"type": "tool_use", "id": "x", "name": "f", "input": {}}
_RESULT: Final = {"type": "tool_result", "tool_use_id": "x", "content": "Hi"}
_SOURCE: Final = {"type": "base64", "media_type": "image/png", "data": PNG}
_PICTURE: Final = {"type": "image", "source": _SOURCE}
_CACHE: Final = {"type": "ephemeral"}
_THOUGHT: Final = {"type": "thinking", "thinking": "Hm.", "signature": ""}


def _result(block: JsonObject) -> Inner:
    return _block("user", _RESULT | {"content": [_TEXT]}, content=[block])


_BLOCKS: Final = {
    "messages[].content": _grown(_USER, content="Ho"),
    "messages[].content[] of type document": _parts("user", {"type": "document", "source": {}}),
    "messages[].content[] of type image": _parts("user", _PICTURE),
    "messages[].content[] of type redacted_thinking": Inner(
        [{"role": "assistant", "content": [_TEXT]}],
        [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, _TEXT]}],
    ),
    "messages[].content[] of type thinking": Inner(
        [{"role": "assistant", "content": [_TEXT]}],
        [
            {
                "role": "assistant",
                "content": [_THOUGHT, _TEXT],
            }
        ],
    ),
    "messages[].content[].cache_control": _block("user", _TEXT, cache_control=_CACHE),
    "messages[].content[].caller": _block("assistant", _USE, caller={"type": "direct"}),
    "messages[].content[].citations": _block("assistant", _TEXT, citations=[{"type": "x"}]),
    "messages[].content[].content": _block("user", _RESULT, content="Ho"),
    "messages[].content[].content[].cache_control": _result(_TEXT | {"cache_control": _CACHE}),
    "messages[].content[].content[].citations": _result(_TEXT | {"citations": [{"type": "x"}]}),
    "messages[].content[].content[].text": _result(_TEXT | {"text": "Ho"}),
    "messages[].content[].id": _block("assistant", _USE, id="y"),
    "messages[].content[].input": _block("assistant", _USE, input={"x": 1}),
    "messages[].content[].is_error": _block("user", _RESULT, is_error=True),
    "messages[].content[].name": _block("assistant", _USE, name="g"),
    "messages[].content[].signature": _block("assistant", _THOUGHT, signature="x"),
    "messages[].content[].source of type url": _block(
        "user", _PICTURE, source={"type": "url", "url": "https://example.com/a.png"}
    ),
    "messages[].content[].text": _block("user", _TEXT, text="Ho"),
    "messages[].content[].tool_use_id": _block("user", _RESULT, tool_use_id="y"),
    "messages[].content[].toolset_name": _block("assistant", _USE, toolset_name="x"),
    "messages[].content[].transformations": _block("user", _PICTURE, transformations=[{"type": "x"}]),
    "messages[].role": _grown(_USER, role="assistant"),
    "messages[].… (any other)": _grown(_USER, name="bob"),
    "system[].cache_control": Inner([_TEXT], [_TEXT | {"cache_control": _CACHE}]),
    "system[].citations": Inner([_TEXT], [_TEXT | {"citations": [{"type": "x"}]}]),
    "system[].text": Inner([_TEXT], [_TEXT | {"text": "Ho"}]),
    "tools[].allowed_callers": _grown(_CLAUDE, allowed_callers=["direct"]),
    "tools[].cache_control": _grown(_CLAUDE, cache_control=_CACHE),
    "tools[].defer_loading": _grown(_CLAUDE, defer_loading=True),
    "tools[].description": _grown(_CLAUDE, description="x"),
    "tools[].eager_input_streaming": _grown(_CLAUDE, eager_input_streaming=True),
    "tools[].input_examples": _grown(_CLAUDE, input_examples=[{"x": 1}]),
    "tools[].input_schema": _grown(_CLAUDE, input_schema=_OTHER_SCHEMA),
    "tools[].name": _grown(_CLAUDE, name="g"),
    "tools[].strict": _grown(_CLAUDE, strict=True),
    "tools[].type": _grown(_CLAUDE, type="web_search_20250305"),
}


def _item(item: JsonObject) -> Inner:
    return Inner([_USER], [_USER, item])


def _thought(**given: Any) -> Inner:
    thought: JsonObject = {"type": "reasoning", "id": "x", "summary": []}
    return Inner([_USER, thought], [_USER, thought | given])


_FUNCTION_CALL: Final = {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}
_OUTPUT: Final = {"type": "function_call_output", "call_id": "x", "output": "Hi"}
_ITEMS: Final = {
    "input[] of type function_call": _item(_FUNCTION_CALL),
    "input[] of type function_call_output": _item(_OUTPUT),
    "input[] of type item_reference": _item({"type": "item_reference", "id": "x"}),
    "input[] of type message": _item({"type": "message", "role": "user", "content": "Ho"}),
    "input[] of type reasoning": _item(
        {"type": "reasoning", "id": "x", "summary": [{"type": "summary_text", "text": "Hm."}]}
    ),
    "input[].arguments": _grown(_FUNCTION_CALL, arguments='{"x":1}'),
    "input[].call_id": _grown(_OUTPUT, call_id="y"),
    "input[].caller": _grown(_FUNCTION_CALL, caller={"type": "direct"}),
    "input[].content": _grown(_USER, content="Ho"),
    "input[].content[] of type input_file": _parts("user", {"type": "input_file", "file_id": "x"}),
    "input[].content[] of type input_image": _parts("user", {"type": "input_image", "image_url": _URL}),
    "input[].content[] of type input_text": _parts("user", {"type": "input_text", "text": "Ho"}),
    "input[].content[].text (of a reasoning)": _thought(content=[{"type": "reasoning_text", "text": "Hm."}]),
    "input[].encrypted_content": _thought(encrypted_content="Hm."),
    "input[].id": _grown(_FUNCTION_CALL, id="fc_x"),
    "input[].name": _grown(_FUNCTION_CALL, name="g"),
    "input[].namespace": _grown(_FUNCTION_CALL, namespace="x"),
    "input[].output": _grown(_OUTPUT, output="Ho"),
    "input[].phase": _grown({"type": "message", "role": "user", "content": "Hi"}, phase="commentary"),
    "input[].role": _grown(_USER, role="developer"),
    "input[].status": _grown(_FUNCTION_CALL, status="completed"),
    "input[].summary": _thought(summary=[{"type": "summary_text", "text": "Hm."}]),
    "tools[].description": _grown(_FLAT, description="x"),
    "tools[].name": _grown(_FLAT, name="g"),
    "tools[].parameters": _grown(_FLAT, parameters=_OTHER_SCHEMA),
    "tools[].strict": _grown(_FLAT, strict=True),
    "tools[].type": _grown(_FLAT, type="web_search"),
}

INNER: Final[dict[Operation, dict[str, Inner]]] = {
    Operation.CHAT: {**_NATIVE_MESSAGES, **_TOOLS},
    Operation.CHAT_COMPLETIONS: {
        **_OPENAI_MESSAGES,
        **_TOOLS,
        "tools[].function.strict": _tool(strict=True),
    },
    Operation.RESPONSES: _ITEMS,
    Operation.MESSAGES: _BLOCKS,
}


def inner_fates(operation: Operation) -> list[tuple[str, tuple[str, ...]]]:
    """Each inner field, and what becomes of it by kind of backend."""
    return [
        (name, tuple(_fate(operation, name, inner, kind) for kind in _KINDS))
        for name, inner in sorted(INNER.get(operation, {}).items())
    ]


def _fate(operation: Operation, name: str, inner: Inner, kind: str) -> str:
    place = re.split(r"[\[.]", name, maxsplit=1)[0]
    try:
        sent = dict(_leaves(operation, kind, {place: inner.given}))
    except InvalidRequest:
        return "400"
    before = dict(_leaves(operation, kind, {place: inner.without}))
    changed = {one for one in sent.keys() | before.keys() if sent.get(one) != before.get(one)}
    if not changed:
        return "ignored"
    if any(one.startswith(name.partition(" ")[0]) for one in changed):
        return "sent"
    return "sent as " + ", ".join(f"`{one}`" for one in sorted(changed)[:_MOST_PATHS])


def _leaves(operation: Operation, kind: str, given: JsonObject) -> Iterator[tuple[str, str]]:
    """What is sent, by field: all values of one, in their order."""
    call = READERS[operation](LEAST[operation] | given)
    request = upstream_of(kind, parts_of(call)[0], "m").request
    body = json.loads(json.dumps(request.body))
    found: dict[str, list[Any]] = {}
    for name, value in _walk(body, _SHAPES[kind, request.path], ""):
        found.setdefault(name, []).append(value)
    return ((name, json.dumps(values)) for name, values in found.items())


def _walk(value: Any, shape: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and shape is not FREE:
        for name, below in value.items():
            inner = shape.get(name) if isinstance(shape, dict) else None
            yield from _walk(below, inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and isinstance(shape, list):
        for item in value:
            yield from _walk(item, shape[0], f"{path}[]")
    else:
        yield path, value
