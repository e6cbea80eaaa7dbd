"""gateway.formats.ollama.schemas: what a model is told of a tool's parameters, though Ollama reads little."""

import json
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.ollama.schemas import folded
from gateway.model import JsonObject

CITY = {
    "type": "object",
    "description": "Where.",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}


def parameters(**properties: Any) -> JsonObject:
    return {"type": "object", "properties": properties}


def of(schema: Any, **definitions: Any) -> Any:
    """What becomes of the schema of one parameter."""
    return folded(parameters(x=schema) | {"$defs": definitions})["properties"]["x"]


def test_what_ollama_reads_is_sent_as_it_is():
    """The very object: most tools cost one look."""
    schema = parameters(x={"type": ["string", "null"]}, y={"anyOf": [CITY, {"type": "string"}]})

    assert folded(schema) is schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param({"$ref": "#/$defs/City"}, CITY, id="a reference"),
        pytest.param(
            {"$ref": "#/$defs/City", "description": "To."}, CITY | {"description": "To."}, id="with words"
        ),
        pytest.param({"$ref": "#/$defs/Cities"}, {"type": "array", "items": CITY}, id="within another"),
        pytest.param({"$ref": "#/$defs/a~1b%20c"}, {"type": "integer"}, id="an escaped name"),
        pytest.param({"$ref": "#/properties/y"}, {"type": "boolean"}, id="to a parameter"),
        pytest.param({"$ref": "#/$defs/None"}, {}, id="to nothing"),
        pytest.param({"$ref": "https://example.org/x.json"}, {}, id="elsewhere"),
        pytest.param({"$ref": 5, "type": "string"}, {"type": "string"}, id="no reference"),
        pytest.param({"$ref": "#/$defs/Any"}, {}, id="to anything"),
        pytest.param(
            {"$ref": "#/$defs/Tree"},
            {
                "type": "object",
                "properties": {"left": {"description": "Again."}, "value": {"type": "string"}},
            },
            id="back to itself",
        ),
        pytest.param({"const": "a"}, {"enum": ["a"]}, id="a constant"),
        pytest.param(
            {"oneOf": [CITY, {"type": "string"}]}, {"anyOf": [CITY, {"type": "string"}]}, id="one of two"
        ),
        pytest.param(
            {"oneOf": [{"const": "a"}, {"const": "b"}]},
            {"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]},
            id="one of two constants",
        ),
        pytest.param(
            {"anyOf": [{"$ref": "#/$defs/City"}, {"type": "null"}], "default": None},
            CITY | {"type": ["object", "null"]},
            id="an optional one, as pydantic writes it",
        ),
        pytest.param(
            {"oneOf": [{"type": "string"}, {"type": ["integer", "string"]}]},
            {"type": ["string", "integer"]},
            id="one of two types",
        ),
        pytest.param(
            {
                "allOf": [
                    {"$ref": "#/$defs/City"},
                    {"properties": {"zip": {"type": "string"}}, "required": ["zip"]},
                ]
            },
            CITY
            | {
                "properties": {"name": {"type": "string"}, "zip": {"type": "string"}},
                "required": ["name", "zip"],
            },
            id="all of two",
        ),
        pytest.param(
            {"type": "array", "prefixItems": [{"type": "string"}, CITY]},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, CITY]}},
            id="a tuple",
        ),
    ],
)
def test_what_would_be_lost_is_said_in_ollamas_words(schema: JsonObject, expected: JsonObject):
    definitions = {
        "City": CITY,
        "Cities": {"type": "array", "items": {"$ref": "#/$defs/City"}},
        "a/b c": {"type": "integer"},
        "Any": True,
        "Tree": parameters(left={"$ref": "#/$defs/Tree", "description": "Again."}, value={"type": "string"}),
    }
    whole = parameters(x=schema, y={"type": "boolean"}) | {"$defs": definitions, "title": "A", "oneOf": []}

    written = folded(whole)

    assert written == {"type": "object", "properties": {"x": expected, "y": {"type": "boolean"}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(
            {"$ref": "#/$defs/City", "$defs": {"City": CITY}}, CITY, id="a reference is all there is"
        ),
        pytest.param(
            {
                "oneOf": [
                    parameters(a={"type": "string"}, b={"type": "string"}) | {"required": ["a", "b"]},
                    parameters(b={"type": "string"}, c={"type": "string"}) | {"required": ["b", "c"]},
                ]
            },
            parameters(b={"type": "string"}, c={"type": "string"}, a={"type": "string"})
            | {"required": ["b"]},
            id="one of two sets: what both demand is demanded",
        ),
        pytest.param(
            {"allOf": [CITY, parameters(zip={"type": "string"})]},
            CITY | {"properties": {"name": {"type": "string"}, "zip": {"type": "string"}}},
            id="two sets in one",
        ),
        pytest.param({"const": 5}, {"type": "object", "properties": {}, "enum": [5]}, id="no set at all"),
    ],
)
def test_parameters_are_always_an_object_with_names(schema: JsonObject, expected: JsonObject):
    assert folded(schema) == expected


def test_what_odd_schemas_grow_to_has_a_bound():
    """Each definition names the next one twice: a thousand bytes that stand for 2^30 parts."""
    definitions: JsonObject = {
        f"d{number}": parameters(a={"$ref": f"#/$defs/d{number + 1}"}, b={"$ref": f"#/$defs/d{number + 1}"})
        for number in range(30)
    }
    words = parameters(**{f"p{number}": {"$ref": "#/$defs/words"} for number in range(1000)})
    many = {"$defs": {"words": {"type": "string", "description": "x" * 6_400}}}

    assert len(orjson.dumps(folded({"$ref": "#/$defs/d0", "$defs": definitions}))) < 100_000
    assert len(orjson.dumps(folded(words | many))) < 200_000


def test_a_long_way_of_references_ends():
    """It is followed as deep as anything may be nested."""
    definitions = {
        f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(sys.getrecursionlimit())
    }

    assert folded({"$ref": "#/$defs/d0", "$defs": definitions}) == {"type": "object", "properties": {}}


KEPT = ("type", "description", "enum", "items", "anyOf", "properties", "required")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "object", "#", "#/$defs/a", "#/$defs/b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEPT, "$ref", "const", "prefixItems", "oneOf", "allOf", "$defs", "a", "b"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(
    schema=st.dictionaries(st.sampled_from(["$ref", "oneOf", "allOf", "properties", "$defs", "const"]), JSON)
)
def test_any_schema_becomes_one_that_ollama_can_read(schema: JsonObject):
    """Its types are those of Go's structs, or it is a 400 for a caller that did nothing wrong."""
    before = json.dumps(schema)
    marked = schema | {"const": 1}

    _check(folded(marked))

    assert json.dumps(schema) == before, "what was given is not touched"


def _check(schema: JsonObject) -> None:
    assert schema.keys() <= set(KEPT)
    assert isinstance(schema.get("type", ""), str) or all(isinstance(kind, str) for kind in schema["type"])
    assert isinstance(schema.get("description", ""), str)
    assert isinstance(schema.get("enum", []), list)
    assert all(isinstance(name, str) for name in schema.get("required", []))
    items = [schema["items"]] if "items" in schema else []
    for one in (*schema.get("properties", {}).values(), *schema.get("anyOf", []), *items):
        _check(one)
