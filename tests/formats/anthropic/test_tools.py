"""gateway.formats.anthropic.tools: the tools of a request, and the choice among them."""

from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.anthropic.tools import read_tools
from gateway.formats.chat import Tool, ToolChoice
from gateway.formats.fields import Fields

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
ADD = {"name": "add", "description": "Adds.", "input_schema": SCHEMA}
TOOL = Tool("add", "Adds.", SCHEMA)


def read(**body: Any) -> Any:
    return read_tools(Fields(body))


@pytest.mark.parametrize(
    ("wire", "tool"),
    [
        pytest.param(ADD, TOOL, id="a tool"),
        pytest.param({**ADD, "type": "custom"}, TOOL, id="a tool that says that it is one"),
        pytest.param({"name": "add", "input_schema": {}}, Tool("add"), id="the least"),
        pytest.param({**ADD, "strict": True}, Tool("add", "Adds.", SCHEMA, strict=True), id="strict"),
        pytest.param(
            {**ADD, "input_examples": [{"x": 1}]},
            Tool("add", "Adds.", {**SCHEMA, "examples": [{"x": 1}]}),
            id="examples, as JSON Schema has them",
        ),
        pytest.param(
            {
                **ADD,
                "cache_control": {"type": "ephemeral"},
                "eager_input_streaming": True,
                "defer_loading": False,
                "allowed_callers": ["direct"],
            },
            TOOL,
            id="what asks for nothing",
        ),
    ],
)
def test_a_tool_is_read(wire: dict[str, Any], tool: Tool) -> None:
    assert read(tools=[wire]) == ((tool,), None, None)


@pytest.mark.parametrize(
    ("choice", "read_as", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any"}, ToolChoice("required"), None),
        ({"type": "tool", "name": "add"}, ToolChoice("required", "add"), None),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice("auto"), False),
        ({"type": "any", "disable_parallel_tool_use": False}, ToolChoice("required"), None),
    ],
    ids=["auto", "any", "a tool", "none", "one call at a time", "calls as the model likes"],
)
def test_a_choice_is_read(choice: dict[str, Any], read_as: ToolChoice, parallel: bool | None) -> None:
    assert read(tools=[ADD], tool_choice=choice) == ((TOOL,), read_as, parallel)


@pytest.mark.parametrize("kind", ["auto", "none"])
def test_a_choice_that_needs_no_tools_may_come_without(kind: str) -> None:
    assert read(tool_choice={"type": kind}) == ((), None, None)


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        pytest.param({"tools": {}}, InvalidRequest, "tools", id="no array"),
        pytest.param({"tools": [{"input_schema": {}}]}, InvalidRequest, "tools[0].name", id="no name"),
        pytest.param({"tools": [{"name": "a"}]}, InvalidRequest, "tools[0].input_schema", id="no schema"),
        pytest.param(
            {"tools": [{"name": "a", "parameters": {}, "input_schema": {}}]},
            UnsupportedField,
            "tools[0].parameters",
            id="OpenAI's word",
        ),
        pytest.param(
            {"tools": [ADD, {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]},
            UnsupportedField,
            "tools[1].type",
            id="a tool that Anthropic runs",
        ),
        pytest.param(
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            UnsupportedField,
            "tools[0].type",
            id="a tool that only Anthropic's models know",
        ),
        pytest.param(
            {"tools": [{**ADD, "defer_loading": True}]},
            InvalidRequest,
            "tools[0].defer_loading",
            id="deferred",
        ),
        pytest.param(
            {"tools": [{**ADD, "allowed_callers": ["code_execution_20260120"]}]},
            InvalidRequest,
            "tools[0].allowed_callers",
            id="called by code",
        ),
        pytest.param(
            {"tool_choice": {"type": "any"}}, InvalidRequest, "tool_choice", id="a choice of nothing"
        ),
        pytest.param({"tools": [ADD], "tool_choice": {}}, InvalidRequest, "tool_choice.type", id="no type"),
        pytest.param(
            {"tools": [ADD], "tool_choice": {"type": "required"}},
            InvalidRequest,
            "tool_choice.type",
            id="OpenAI's type",
        ),
        pytest.param(
            {"tools": [ADD], "tool_choice": {"type": "tool", "name": "sub"}},
            InvalidRequest,
            "tool_choice.name",
            id="another tool",
        ),
        pytest.param(
            {"tools": [ADD], "tool_choice": {"type": "auto", "function": {}}},
            UnsupportedField,
            "tool_choice.function",
            id="an unknown field",
        ),
    ],
)
def test_tools_that_cannot_be_are_refused(
    body: dict[str, Any], error: type[GatewayError], param: str
) -> None:
    """The error names the field by its path."""
    with pytest.raises(error) as refused:
        read(**body)

    assert (type(refused.value), refused.value.param) == (error, param)
