"""Tools, the choice among them, and calls: OpenAI's shapes ↔ the house's words."""

from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import ChatCall, Tool, ToolCall, ToolChoice
from gateway.formats.fields import Fields
from gateway.formats.strict_json import parse_object
from gateway.model import JsonObject

# Agents with many MCP servers bring some hundreds.
MAX_TOOLS: Final = 512
MAX_TOOL_CALLS: Final = 128
# Arguments that are no JSON object, or one that parsers read differently, travel as an object with this
# one key, and leave as they came.
UNPARSED: Final = "_unparsed"

_MODES: Final = ("none", "auto", "required")
_ANY_OBJECT: Final[JsonObject] = {"type": "object", "properties": {}}

# ── arguments: a string here, an object everywhere else ──────────────────────────────────


def arguments_of(text: str) -> JsonObject:
    """The object that the text of a call's arguments stands for. Never raises: models write anything."""
    if not text.strip():
        return {}
    try:
        return parse_object(text.encode())
    except InvalidRequest:
        return {UNPARSED: text}


def arguments_text(arguments: JsonObject) -> str:
    """Compact JSON, or what could not be parsed just as it was."""
    unparsed = arguments.get(UNPARSED)
    if isinstance(unparsed, str) and len(arguments) == 1:
        return unparsed
    return orjson.dumps(arguments).decode()


# ── reading a request ────────────────────────────────────────────────────────────────────

TOOL_FIELDS: Final = frozenset({"tools", "tool_choice", "functions", "function_call"})
_TOOL_FIELDS: Final = frozenset({"type", "function"})
_FUNCTION_FIELDS: Final = frozenset({"name", "description", "parameters", "strict"})


def read_tools(body: Fields) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """`tools` and `tool_choice`, or their elders `functions` and `function_call`.

    Of the allowed_tools of a choice only those are kept. A choice of no tool at all, or auto, needs
    no tools; any other one does.
    """
    if not body.has_any(TOOL_FIELDS):
        return (), None
    if body.has("tools") and body.has("functions"):
        raise body.refuse("functions", "left out where 'tools' is given")
    tools = tuple(_read_tool(tool) for tool in body.objects("tools", MAX_TOOLS))
    tools += tuple(read_function(function) for function in body.objects("functions", MAX_TOOLS))
    name = "tool_choice" if body.has("tool_choice") else "function_call"
    return read_choice(body, name, tools)


def read_tool_calls(message: Fields) -> tuple[ToolCall, ...]:
    """`tool_calls` of an assistant's message, or its elder `function_call`."""
    calls = [_read_call(call) for call in message.objects("tool_calls", MAX_TOOL_CALLS)]
    if function := message.object("function_call"):
        calls.append(
            ToolCall(id="", name=function.required_string("name"), arguments=_read_arguments(function))
        )
    return tuple(calls)


def _read_tool(tool: Fields) -> Tool:
    tool.refuse_look_alikes(_TOOL_FIELDS)
    _refuse_other_types(tool)
    return read_function(tool.required_object("function"))


def read_function(function: Fields) -> Tool:
    function.refuse_look_alikes(_FUNCTION_FIELDS)
    parameters = function.raw("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise function.refuse("parameters", "a JSON Schema: an object")
    return Tool(
        name=function.required_string("name"),
        description=function.text("description"),
        parameters=parameters or {},
        strict=function.boolean("strict"),
    )


def _read_call(call: Fields) -> ToolCall:
    _refuse_other_types(call)
    function = call.required_object("function")
    return ToolCall(
        id=call.text("id"), name=function.required_string("name"), arguments=_read_arguments(function)
    )


def _read_arguments(function: Fields) -> JsonObject:
    arguments: Any = function.raw("arguments")
    # Some clients send back the object that they parsed.
    return arguments if isinstance(arguments, dict) else arguments_of(function.text("arguments"))


def _refuse_other_types(tool: Fields) -> None:
    kind = tool.string("type")
    if kind not in (None, "function"):
        param = tool.path("type")
        raise UnsupportedField(
            f"'{param}' must be function: this gateway runs no tools of its own.", param=param
        )


# ── the choice ───────────────────────────────────────────────────────────────────────────


def read_choice(
    body: Fields, name: str, tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    if not body.has(name):
        return tools, None
    if isinstance(body.raw(name), str):
        choice = ToolChoice(body.choice(name, *_MODES) or "auto")
    else:
        tools, choice = _chosen_by_name(Fields(body.raw(name), name), tools)
    if not tools:
        if choice.mode == "required":
            raise body.refuse(name, "left out where no tools are given")
        return (), None
    return tools, choice


def _chosen_by_name(choice: Fields, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """`{"type": "function", "function": {"name"}}`, or `{"name"}` as elder clients and /v1/responses have it;
    or allowed_tools, nested or flat likewise."""
    kind = choice.choice("type", "function", "allowed_tools") or "function"
    if kind == "allowed_tools":
        return _allowed(choice if choice.has("tools") else choice.required_object("allowed_tools"), tools)
    name = _name_of(choice, tools)
    return tools, ToolChoice("required", name)


def _allowed(allowed: Fields, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    names = {_name_of(tool, tools) for tool in allowed.objects("tools", MAX_TOOLS)}
    mode = allowed.choice("mode", "auto", "required") or "auto"
    return tuple(tool for tool in tools if tool.name in names), ToolChoice(mode)


def _name_of(choice: Fields, tools: tuple[Tool, ...]) -> str:
    function = choice.object("function") or choice
    name = function.required_string("name")
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(
            f"'{function.path('name')}' must be one of the tools given.", param=function.path("name")
        )
    return name


# ── writing a request ────────────────────────────────────────────────────────────────────


def write_tools(call: ChatCall) -> JsonObject:
    """The fields for tools, choice and parallel calls; none where there are no tools: vLLM refuses `[]`.

    A choice of one function is sent as that function alone and `required`, which means the same:
    llama.cpp takes no choice by name and would fall back to auto without a word.
    """
    if not call.tools:
        return {}
    choice = call.tool_choice
    tools = [tool for tool in call.tools if choice is None or choice.name in ("", tool.name)]
    body: JsonObject = {"tools": [_write_tool(tool) for tool in tools]}
    if choice is not None:
        body["tool_choice"] = choice.mode
    if call.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = call.parallel_tool_calls
    return body


def write_call(call: ToolCall) -> JsonObject:
    function = {"name": call.name, "arguments": arguments_text(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _write_tool(tool: Tool) -> JsonObject:
    function: JsonObject = {"name": tool.name, "parameters": tool.parameters or _ANY_OBJECT}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
