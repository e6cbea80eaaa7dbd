"""The gateway's API as OpenAPI 3.1, and the list of routes on its page: written from the tables of the code.

python -m scripts.openapi
"""

import json
from pathlib import Path
from typing import Final

from gateway.model import JsonObject, Operation, Surface
from gateway.rules.endpoints import ROUTES
from scripts.api_fields import ROOT, Fate, fates
from scripts.api_samples import LEAST, SAMPLES
from scripts.openapi_answers import ANSWERS, ERRORS, HEADERS, STREAMS, TEXTS

PAGES: Final = ROOT / "gateway" / "proxy" / "pages"
OPENAPI: Final = PAGES / "openapi.json"
DOCS: Final = PAGES / "docs.html"
_ROUTES: Final = "<!-- routes -->"
_END: Final = "<!-- end of routes -->"

# What each operation is for, for people.
TOLD: Final = {
    "root": "Says that the gateway is there",
    "docs": "This page",
    "openapi": "The API as OpenAPI 3.1",
    "version": "The version of Ollama whose protocol is spoken",
    "tags": "The models, as Ollama lists them",
    "ps": "The models that are loaded now",
    "show": "A model's details",
    "chat": "Chat, Ollama's way",
    "generate": "Completion, Ollama's way",
    "embed": "Embeddings, Ollama's way",
    "legacy_embeddings": "One embedding, Ollama's elder way",
    "chat_completions": "Chat, OpenAI's way",
    "completions": "Completion, OpenAI's elder way",
    "embeddings": "Embeddings, OpenAI's way",
    "responses": "Responses, OpenAI's way; nothing is stored",
    "messages": "Messages, Anthropic's way",
    "count_tokens": "About how many tokens a prompt has",
    "models": "The models, as OpenAI lists them",
    "model": "One model",
    "usage": "Your limits, budgets and recent refusals",
    "health": "Whether the process lives",
    "readiness": "Whether it can serve, or what is missing",
}
_MODEL_PATH: Final = "/v1/models/{model}"

# Which headers may be on which answers, besides x-request-id.
_OF_INFERENCE: Final = (
    *("x-gateway-dropped-options", "x-gateway-truncated"),
    *("x-queue-position", "x-queue-wait-ms"),
    *("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens", "x-budget-remaining-day"),
)
_OF_ERRORS: Final = ("retry-after", "x-should-retry")


def listed() -> list[tuple[str, tuple[str, ...], Operation, Surface]]:
    """Path, methods, operation and surface of every route, the one with a pattern included."""
    found = [
        (path.decode(), methods, route.operation, route.surface) for path, (methods, route) in ROUTES.items()
    ]
    return sorted([*found, (_MODEL_PATH, ("GET",), Operation.MODEL, Surface.OPENAI)])


def document() -> JsonObject:
    paths: JsonObject = {}
    for path, methods, operation, surface in listed():
        paths[path] = {method.lower(): _operation(path, method, operation, surface) for method in methods}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "neuronetz-gateway",
            "version": "1",
            "description": "OpenAI's, Anthropic's and Ollama's protocols, in front of shared models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": surface.value} for surface in Surface],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Your key, nz_…"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": dict([*ANSWERS.values(), *ERRORS.values()]),
            "headers": {
                name: {"description": told, "schema": {"type": "string"}} for name, told in HEADERS.items()
            },
        },
    }


def _operation(path: str, method: str, operation: Operation, surface: Surface) -> JsonObject:
    suffix = "" if method in ("GET", "POST") else f"_{method.lower()}"
    written: JsonObject = {
        "operationId": operation.value + suffix,
        "summary": TOLD[operation.value],
        "tags": [surface.value],
        "responses": _responses(operation, surface, method),
    }
    if operation.is_public:
        written["security"] = []
    elif surface is Surface.ANTHROPIC:
        written["security"] = [{"bearer": []}, {"x-api-key": []}]
    if path == _MODEL_PATH:
        written["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if method == "POST":
        content = {"schema": _request(operation), "example": _example(operation)}
        written["requestBody"] = {"required": True, "content": {"application/json": content}}
    return written


# ── answers ──────────────────────────────────────────────────────────────────────────────


def _responses(operation: Operation, surface: Surface, method: str) -> JsonObject:
    done: JsonObject = {
        "description": "Done",
        "headers": _headers(*(_OF_INFERENCE if operation in SAMPLES else ())),
    }
    if operation is Operation.COUNT_TOKENS:
        done["headers"] |= _headers("x-gateway-estimated")
    if method != "HEAD":
        done["content"] = _content(operation, surface)
    error = {
        "description": "Refused or failed",
        "headers": _headers(*_OF_ERRORS),
        "content": {"application/json": {"schema": _reference(ERRORS[surface][0])}},
    }
    return {"200": done, "default": error if method != "HEAD" else {"description": "Refused or failed"}}


def _content(operation: Operation, surface: Surface) -> JsonObject:
    if operation in TEXTS:
        return {TEXTS[operation]: {"schema": {"type": "string"}}}
    content: JsonObject = {"application/json": {"schema": _reference(ANSWERS[operation][0])}}
    if "stream" in SAMPLES.get(operation, {}):
        media_type, told = STREAMS[surface]
        content[media_type] = {"schema": {"type": "string", "description": told}}
    return content


def _headers(*names: str) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id", *names)}


def _reference(schema: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{schema}"}


# ── requests ─────────────────────────────────────────────────────────────────────────────

# Which read the same fields as another route, but for those.
_LIKE: Final = {Operation.COUNT_TOKENS: (Operation.MESSAGES, {"max_tokens", "stream"})}


def _request(operation: Operation) -> JsonObject:
    """The fields that are not always refused, each with what becomes of it."""
    like, without = _LIKE.get(operation, (operation, set[str]()))
    told = [fate for fate in fates(like) if _is_taken(fate)] if like in SAMPLES else []
    properties: JsonObject = {
        fate.name: _property(fate) for fate in told if "." not in fate.name and fate.name not in without
    }
    if "options" in properties:
        properties["options"] = {
            "type": "object",
            "properties": {fate.name.partition(".")[2]: _property(fate) for fate in told if "." in fate.name},
        }
    required = [name for name in _least(operation) if name != "stream"]
    return {
        "type": "object",
        "required": required,
        "properties": properties or {name: {"type": "string"} for name in required},
    }


def _least(operation: Operation) -> JsonObject:
    return LEAST.get(operation, {"model": "m"})


def _example(operation: Operation) -> JsonObject:
    return _least(operation) | {"model": "MODEL"}


def _is_taken(fate: Fate) -> bool:
    return set(fate.by_kind) != {"400"}


def _property(fate: Fate) -> JsonObject:
    if len(set(fate.by_kind)) == 1:
        told = fate.by_kind[0]
    else:
        told = f"ollama: {fate.by_kind[0]}; openai: {fate.by_kind[1]}"
    return {"description": told.replace("`", "")} | _type_of(fate)


_TEXTS_OR_TOKENS: Final[JsonObject] = {"type": ["string", "array"]}
_OF_SEVERAL_TYPES: Final[dict[str, JsonObject]] = {
    "format": {"type": ["string", "object"]},
    "function_call": {"type": ["string", "object"]},
    "input": _TEXTS_OR_TOKENS,
    "keep_alive": {"type": ["string", "number"]},
    "prompt": _TEXTS_OR_TOKENS,
    "stop": {"type": ["string", "array"]},
    "system": {"type": ["string", "array"]},
    "think": {"type": ["boolean", "string"]},
    "tool_choice": {"type": ["string", "object"]},
}


_TYPES: Final[dict[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
}


def _type_of(fate: Fate) -> JsonObject:
    """By the value that was tried."""
    if fate.name in _OF_SEVERAL_TYPES:
        return _OF_SEVERAL_TYPES[fate.name]
    if isinstance(fate.value, list):
        items = {"type": _TYPES[type(fate.value[0])]} if fate.value else {}
        return {"type": "array", "items": items}
    return {"type": _TYPES[type(fate.value)]}


# ── the page ─────────────────────────────────────────────────────────────────────────────


def page_with_routes(page: str) -> str:
    rows = [
        f"<tr><td><code>{path}</code></td><td>{', '.join(methods)}</td><td>{TOLD[operation.value]}</td></tr>"
        for path, methods, operation, _ in listed()
    ]
    head = (
        '<tr><th scope="col">Route</th><th scope="col">Methods</th><th scope="col">What it is for</th></tr>'
    )
    table = "\n".join([_ROUTES, "<table>", head, *rows, "</table>", _END])
    before, _, rest = page.partition(_ROUTES)
    return before + table + (rest.partition(_END)[2] if _END in rest else rest)


def as_text() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(OPENAPI, as_text())
    write(DOCS, page_with_routes(DOCS.read_text(encoding="utf-8")))
