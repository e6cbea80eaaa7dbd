"""The gateway's API as OpenAPI 3.1, and the list of routes on its page: written from the tables of the code.

python -m scripts.openapi
"""

import json
from pathlib import Path
from typing import Any, Final

from gateway.model import JsonObject, Operation, Surface
from gateway.rules.endpoints import ROUTES
from scripts.api_fields import ROOT, Fate, fates
from scripts.api_samples import LEAST, SAMPLES

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
_STREAMS: Final = {Surface.OLLAMA: "application/x-ndjson"}
_MODEL_PATH: Final = "/v1/models/{model}"
_TEXTS: Final = {Operation.ROOT: "text/plain", Operation.DOCS: "text/html"}


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
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Your key, nz_…"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {surface.value.capitalize() + "Error": _error(surface) for surface in Surface},
        },
    }


def _operation(path: str, method: str, operation: Operation, surface: Surface) -> JsonObject:
    suffix = "" if method in ("GET", "POST") else f"_{method.lower()}"
    written: JsonObject = {
        "operationId": operation.value + suffix,
        "summary": TOLD[operation.value],
        "tags": [surface.value],
        "responses": _responses(operation, surface),
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
        written["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _request(operation)}},
        }
    return written


def _responses(operation: Operation, surface: Surface) -> JsonObject:
    content: JsonObject = {_TEXTS.get(operation, "application/json"): {}}
    if "stream" in SAMPLES.get(operation, {}):
        content[_STREAMS.get(surface, "text/event-stream")] = {}
    error = {"$ref": f"#/components/schemas/{surface.value.capitalize()}Error"}
    return {
        "200": {"description": "Done", "content": content},
        "default": {
            "description": "Refused or failed; see x-request-id and, where there is one, Retry-After",
            "content": {"application/json": {"schema": error}},
        },
    }


def _request(operation: Operation) -> JsonObject:
    told = fates(operation) if operation in SAMPLES else []
    properties = {fate.name: _property(fate) for fate in told if "." not in fate.name and _is_taken(fate)}
    required = [name for name in LEAST.get(operation, {"model": ""}) if name != "stream"]
    if not properties:
        properties = {name: {} for name in required}
    return {"type": "object", "required": required, "properties": properties}


def _is_taken(fate: Fate) -> bool:
    return set(fate.by_kind) != {"400"}


def _property(fate: Fate) -> JsonObject:
    if len(set(fate.by_kind)) == 1:
        told = fate.by_kind[0]
    else:
        told = f"ollama: {fate.by_kind[0]}; openai: {fate.by_kind[1]}"
    return {"description": told.replace("`", "")} | _type_of(fate)


def _type_of(fate: Fate) -> JsonObject:
    """Where a field takes several types, as `stop` does, none is told."""
    several = {"stop", "input", "prompt", "system", "think", "format", "keep_alive", "tool_choice", "content"}
    if fate.name in several:
        return {}
    match fate.value:
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": {}}
        case _:
            return {"type": "object"}


def _error(surface: Surface) -> JsonObject:
    text: JsonObject = {"type": "string"}
    match surface:
        case Surface.OLLAMA:
            inner: JsonObject = text
        case Surface.OPENAI:
            nullable = {"type": ["string", "null"]}
            inner = _object(message=text, type=text, param=nullable, code=nullable)
        case Surface.ANTHROPIC:
            inner = _object(type=text, message=text)
    return _object(error=inner)


def _object(**properties: Any) -> JsonObject:
    return {"type": "object", "required": list(properties), "properties": properties}


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
