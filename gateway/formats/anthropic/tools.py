"""Tools and the choice among them: Anthropic's shapes, in the house's words."""

from typing import Final

from gateway.errors import UnsupportedField
from gateway.formats.anthropic.parameters import read_schema
from gateway.formats.chat import Tool, ToolChoice
from gateway.formats.fields import Fields

# Agents with many MCP servers bring some hundreds.
MAX_TOOLS: Final = 512

TOOL_FIELDS: Final = frozenset({"tools", "tool_choice"})
_FIELDS: Final = frozenset(
    {"type", "name", "description", "input_schema", "strict", "input_examples"}
    # Where the tool stands in a cache and how its input is streamed changes no answer.
    | {"cache_control", "eager_input_streaming"}
    | {"allowed_callers", "defer_loading"}
)
_CHOICE_FIELDS: Final = frozenset({"type", "name", "disable_parallel_tool_use"})
_MODES: Final = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def read_tools(body: Fields) -> tuple[tuple[Tool, ...], ToolChoice | None, bool | None]:
    """The tools, the choice among them, and whether calls may be parallel (None: as the model likes).

    A choice of no tool at all, or auto, needs no tools; any other one does.
    """
    tools = tuple(_read_tool(tool) for tool in body.objects("tools", MAX_TOOLS))
    choice = body.object("tool_choice")
    if choice is None:
        return tools, None, None
    choice.refuse_unknown(_CHOICE_FIELDS)
    read = _read_choice(choice, tools)
    if not tools:
        if read.mode == "required":
            raise body.refuse("tool_choice", "left out where no tools are given")
        return (), None, None
    return tools, read, False if choice.boolean("disable_parallel_tool_use") else None


def _read_choice(choice: Fields, tools: tuple[Tool, ...]) -> ToolChoice:
    kind = choice.required_choice("type", *_MODES)
    if kind != "tool":
        return ToolChoice(_MODES[kind])
    name = choice.required_string("name")
    if all(tool.name != name for tool in tools):
        raise choice.refuse("name", "the name of one of the tools given")
    return ToolChoice("required", name)


def _read_tool(tool: Fields) -> Tool:
    _refuse_server_tools(tool)
    tool.refuse_unknown(_FIELDS)
    if tool.boolean("defer_loading"):
        raise tool.refuse("defer_loading", "left out: there is no search for tools here")
    if set(tool.strings("allowed_callers")) - {"direct"}:
        raise tool.refuse("allowed_callers", "left out: only the model calls tools here")
    schema = read_schema(tool, "input_schema")
    if examples := tool.array("input_examples"):
        # JSON Schema's own word for them.
        schema = schema | {"examples": examples}
    return Tool(
        name=tool.required_string("name"),
        description=tool.text("description"),
        parameters=schema,
        strict=tool.boolean("strict"),
    )


def _refuse_server_tools(tool: Fields) -> None:
    """First of all, as these have fields of their own."""
    kind = tool.string("type")
    if kind not in (None, "custom"):
        param = tool.path("type")
        raise UnsupportedField(
            f"'{param}': '{kind[:40]}' is a tool of Anthropic's own, and this gateway has none of those; "
            "describe yours by name, description and input_schema.",
            param=param,
        )
