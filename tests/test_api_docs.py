"""docs/API.md, /openapi.json and /docs say what the code does: they are written from it, and up to date."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.formats.fields import Fields
from gateway.formats.ollama.shown import read_show
from gateway.formats.translation import READERS, SURFACES
from gateway.model import JsonObject, Operation
from gateway.rules.endpoints import ROUTES
from scripts.api_fields import PAGE, fates, known_fields, page_with_tables
from scripts.api_inner import INNER, inner_fates
from scripts.api_samples import SAMPLES
from scripts.openapi import DOCS, OPENAPI, TOLD, as_text, document, page_with_routes
from tests.fuzz.test_bodies import BODIES

INFERENCE = sorted(SURFACES, key=lambda operation: operation.value)


def test_every_route_that_asks_a_model_has_its_table():
    assert set(SAMPLES) == set(SURFACES)
    assert {route.operation.value for _, route in ROUTES.values()} <= set(TOLD)


@pytest.mark.parametrize("operation", INFERENCE, ids=lambda operation: operation.value)
def test_every_field_that_the_code_knows_is_in_its_table(operation: Operation):
    assert set(SAMPLES[operation]) == known_fields(operation)


# What the rows "of type …" tell of whole items and blocks.
BY_TYPE = re.compile(r".*\.(?:type|data|thinking|source(?:\..*)?)")


@pytest.mark.parametrize("operation", INNER, ids=lambda operation: operation.value)
def test_every_inner_field_that_the_code_knows_is_in_its_table(operation: Operation):
    """As the readers name them when they look for look-alikes in messages, items, blocks and tools."""
    known: set[str] = set()

    def noted(fields: Fields, names: frozenset[str]) -> None:
        known.update(re.sub(r"\[\d+\]", "[]", fields.path(name)) for name in names)

    with patch.multiple(Fields, refuse_look_alikes=noted, refuse_unknown=noted):
        READERS[operation](BODIES[operation])
    told = {name.partition(" ")[0] for name in INNER[operation]}
    missing = {
        name
        for name in known
        if "[" in name and not any(one.startswith((f"{name}[", f"{name}.")) for one in told)
    } - told

    assert not {name for name in missing if not BY_TYPE.fullmatch(name)}


@pytest.mark.parametrize(
    ("operation", "name", "expected"),
    [
        (Operation.CHAT_COMPLETIONS, "messages[].content[].image_url.detail", ("ignored", "ignored")),
        (Operation.CHAT_COMPLETIONS, "messages[].name", ("sent as `messages[].tool_name`", "sent")),
        (Operation.CHAT, "messages[].tool_name", ("sent", "sent as `messages[].name`")),
        (Operation.MESSAGES, "messages[].content[].source of type url", ("400", "400")),
        (Operation.RESPONSES, "input[].id", ("ignored", "ignored")),
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_tables_tell_what_becomes_of_an_inner_field(
    operation: Operation, name: str, expected: tuple[str, ...]
):
    assert dict(inner_fates(operation))[name] == expected


@pytest.mark.parametrize(
    ("file", "current"),
    [
        pytest.param(PAGE, lambda: page_with_tables(PAGE.read_text()), id="API.md"),
        pytest.param(OPENAPI, as_text, id="openapi.json"),
        pytest.param(DOCS, lambda: page_with_routes(DOCS.read_text()), id="docs.html"),
    ],
)
def test_what_is_written_is_up_to_date(file: Path, current: Any):
    """If not: `python -m scripts.api_fields && python -m scripts.openapi`."""
    assert file.read_text() == current()


@pytest.mark.parametrize(
    ("operation", "field", "expected"),
    [
        (Operation.CHAT_COMPLETIONS, "temperature", ("sent as `options.temperature`", "sent")),
        (Operation.CHAT_COMPLETIONS, "logit_bias", ("400", "sent")),
        (Operation.CHAT_COMPLETIONS, "user", ("ignored", "ignored")),
        (Operation.CHAT, "options.num_gpu", ("dropped, named", "dropped, named")),
        (Operation.CHAT, "options.num_predict", ("sent", "sent as `max_tokens`")),
        (Operation.RESPONSES, "previous_response_id", ("400", "400")),
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_tables_tell_what_becomes_of_a_field(operation: Operation, field: str, expected: tuple[str, ...]):
    """A few by hand, so that the way they are found out is tested too."""
    (fate,) = (fate for fate in fates(operation) if fate.name == field)

    assert fate.by_kind == expected


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_openapi_document_is_whole():
    """Every route and method, unique ids, and references that lead somewhere."""
    written = document()
    ids = [one["operationId"] for path in written["paths"].values() for one in path.values()]

    assert set(written["paths"]) == {path.decode() for path in ROUTES} | {"/v1/models/{model}"}
    assert len(ids) == len(set(ids))
    for reference in references(written):
        found: Any = written
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    assert json.loads(as_text()) == written


def test_the_openapi_document_is_what_the_standard_says():
    validate(document())


def test_every_answer_of_the_openapi_document_is_described():
    """Text, or a schema that names what is always there."""
    written = document()
    for path, methods in written["paths"].items():
        for method, one in methods.items():
            content = one["responses"]["200"].get("content", {})
            assert bool(content) == (method != "head"), path
            for described in content.values():
                schema = described["schema"]
                if "$ref" in schema:
                    schema = written["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                assert schema["type"] == "string" or schema["required"], path


POSTS = [(path, methods["post"]) for path, methods in document()["paths"].items() if "post" in methods]


@pytest.mark.parametrize(("path", "told"), POSTS, ids=[path for path, _ in POSTS])
def test_the_example_of_a_route_can_be_sent(path: str, told: JsonObject):
    """It has what the route requires, fits what the document says of its fields, and is read by the code."""
    (content,) = told["requestBody"]["content"].values()
    read = {operation.value: reader for operation, reader in READERS.items()} | {"show": read_show}

    Draft202012Validator(content["schema"]).validate(content["example"])
    read[told["operationId"]](content["example"])

    assert f"### POST {path}\n" in PAGE.read_text()


def test_a_count_of_tokens_takes_the_fields_of_a_message():
    """Which is why its table is not written out a second time."""
    assert known_fields(Operation.COUNT_TOKENS) == known_fields(Operation.MESSAGES)
