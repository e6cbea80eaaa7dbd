"""gateway.formats.openai.tools: tools, the choice among them, and the arguments of calls."""

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.chat import ChatCall, Tool, ToolChoice
from gateway.formats.fields import Fields
from gateway.formats.openai.tools import arguments_of, arguments_text, read_tools, write_tools

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
ADD, SUB = Tool("add", "Adds.", SCHEMA), Tool("sub", "", SCHEMA, strict=True)
ADD_WIRE = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}
SUB_WIRE = {"type": "function", "function": {"name": "sub", "parameters": SCHEMA, "strict": True}}
BOTH = {"tools": [ADD_WIRE, SUB_WIRE]}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("wire", "tools", "choice"),
    [
        pytest.param({}, (), None, id="none"),
        pytest.param({"tools": []}, (), None, id="an empty list"),
        pytest.param(BOTH, (ADD, SUB), None, id="tools"),
        pytest.param(
            {"tools": [{"function": {"name": "add"}}]}, (Tool("add"),), None, id="the least of a tool"
        ),
        pytest.param({"functions": [ADD_WIRE["function"]]}, (ADD,), None, id="functions, the elder of tools"),
        pytest.param(
            {**BOTH, "tool_choice": "none"}, (ADD, SUB), ToolChoice("none"), id="none may be called"
        ),
        pytest.param({**BOTH, "tool_choice": "auto"}, (ADD, SUB), ToolChoice("auto"), id="auto"),
        pytest.param({**BOTH, "tool_choice": "required"}, (ADD, SUB), ToolChoice("required"), id="required"),
        pytest.param(
            {**BOTH, "tool_choice": named("sub")}, (ADD, SUB), ToolChoice("required", "sub"), id="named"
        ),
        pytest.param(
            {**BOTH, "function_call": {"name": "sub"}},
            (ADD, SUB),
            ToolChoice("required", "sub"),
            id="elder named",
        ),
        pytest.param({**BOTH, "function_call": "none"}, (ADD, SUB), ToolChoice("none"), id="elder none"),
        pytest.param(
            {
                **BOTH,
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [named("sub")]},
                },
            },
            (SUB,),
            ToolChoice("required"),
            id="allowed tools alone are kept",
        ),
        pytest.param({"tool_choice": "auto"}, (), None, id="auto without tools"),
        pytest.param({"tools": [], "tool_choice": "none"}, (), None, id="none without tools"),
    ],
)
def test_tools_and_their_choice_are_read(
    wire: dict[str, Any], tools: tuple[Tool, ...], choice: ToolChoice | None
) -> None:
    """A choice means the same whichever of OpenAI's shapes it has."""
    assert read_tools(Fields(wire)) == (tools, choice)


@pytest.mark.parametrize(
    ("wire", "error", "param"),
    [
        pytest.param(
            {**BOTH, "functions": [{"name": "x"}]}, InvalidRequest, "functions", id="tools and functions"
        ),
        pytest.param({"tools": [{}]}, InvalidRequest, "tools[0].function", id="no function"),
        pytest.param({"tools": [{"function": {}}]}, InvalidRequest, "tools[0].function.name", id="no name"),
        pytest.param(
            {"tools": [{"function": {"name": "x", "parameters": []}}]},
            InvalidRequest,
            "tools[0].function.parameters",
            id="no schema",
        ),
        pytest.param(
            {"tools": [{"type": "web_search"}]},
            UnsupportedField,
            "tools[0].type",
            id="a tool of OpenAI's own",
        ),
        pytest.param({"tools": [ADD_WIRE] * 513}, InvalidRequest, "tools", id="too many"),
        pytest.param({"tools": [{"Function": {}}]}, InvalidRequest, "tools[0].Function", id="look-alike"),
        pytest.param({**BOTH, "tool_choice": "any"}, InvalidRequest, "tool_choice", id="unknown mode"),
        pytest.param({**BOTH, "tool_choice": 1}, InvalidRequest, "tool_choice", id="a number"),
        pytest.param(
            {**BOTH, "tool_choice": named("mul")},
            InvalidRequest,
            "tool_choice.function.name",
            id="an unknown function",
        ),
        pytest.param({"tool_choice": "required"}, InvalidRequest, "tool_choice", id="required without tools"),
        pytest.param(
            {**BOTH, "tool_choice": {"type": "allowed_tools"}},
            InvalidRequest,
            "tool_choice.allowed_tools",
            id="allowed tools without any",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    wire: dict[str, Any], error: type[GatewayError], param: str
) -> None:
    """The error names the field by its path."""
    with pytest.raises(error) as refused:
        read_tools(Fields(wire))

    assert (type(refused.value), refused.value.param) == (error, param)


CALL = ChatCall(model="m", messages=(), stream=False, tools=(ADD, SUB))


@pytest.mark.parametrize(
    ("call", "written"),
    [
        pytest.param(CALL, BOTH, id="tools"),
        pytest.param(
            evolve(CALL, parallel_tool_calls=False),
            {**BOTH, "parallel_tool_calls": False},
            id="one call at a time",
        ),
        pytest.param(
            evolve(CALL, tool_choice=ToolChoice("none")), {**BOTH, "tool_choice": "none"}, id="none"
        ),
        pytest.param(
            evolve(CALL, tool_choice=ToolChoice("required", "sub")),
            {"tools": [SUB_WIRE], "tool_choice": "required"},
            id="a named function is sent alone",
        ),
        pytest.param(
            evolve(CALL, tools=(), tool_choice=ToolChoice("auto"), parallel_tool_calls=True),
            {},
            id="nothing without tools",
        ),
        pytest.param(
            evolve(CALL, tools=(Tool("now"),)),
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
                    }
                ]
            },
            id="no parameters are an empty object",
        ),
    ],
)
def test_tools_are_written(call: ChatCall, written: dict[str, Any]) -> None:
    """vLLM refuses `tools: []`, and a choice without tools; llama.cpp knows no choice by name."""
    assert write_tools(call) == written


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"x":1}', {"x": 1}),
        ("", {}),
        (" \n", {}),
        ('{"x":', {"_unparsed": '{"x":'}),
        ("[1]", {"_unparsed": "[1]"}),
        ("x=1", {"_unparsed": "x=1"}),
        ('{"x":NaN}', {"_unparsed": '{"x":NaN}'}),
    ],
)
def test_arguments_are_an_object_whatever_the_model_wrote(text: str, arguments: dict[str, Any]) -> None:
    """Models break off in the middle of their JSON; the caller must get to see what they wrote."""
    assert arguments_of(text) == arguments


@given(text=st.text(alphabet='{}[]":,x1 \n').filter(str.strip))
def test_unparsable_arguments_leave_as_they_came(text: str) -> None:
    """OpenAI's callers get the text; whether it is JSON is for them to see."""
    arguments = arguments_of(text)

    if "_unparsed" in arguments:
        assert arguments_text(arguments) == text
    else:
        assert arguments_of(arguments_text(arguments)) == arguments
