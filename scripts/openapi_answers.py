"""What each route answers, as JSON Schema: the fields that are always there, and those that may be.

tests/e2e/test_openapi.py holds real answers against them.
"""

from typing import Any, Final

from gateway.model import JsonObject, Operation, Surface

TEXT: Final[JsonObject] = {"type": "string"}
WHOLE: Final[JsonObject] = {"type": "integer", "minimum": 0}
NUMBER: Final[JsonObject] = {"type": "number"}
FLAG: Final[JsonObject] = {"type": "boolean"}
ANY: Final[JsonObject] = {}


def is_always(value: str) -> JsonObject:
    return {"type": "string", "const": value}


def one_of(*values: str) -> JsonObject:
    return {"type": "string", "enum": list(values)}


def or_null(schema: JsonObject) -> JsonObject:
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(items: JsonObject) -> JsonObject:
    return {"type": "array", "items": items}


def made_of(optional: JsonObject | None = None, /, **required: JsonObject) -> JsonObject:
    """An object that has all of `required`, and may have the others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
    }


def any_object(**optional: JsonObject) -> JsonObject:
    return {"type": "object", "properties": optional}


# ── OpenAI's ─────────────────────────────────────────────────────────────────────────────

_TOKEN: Final = {"token": TEXT, "logprob": NUMBER, "bytes": or_null(list_of(WHOLE))}
_LOGPROB: Final = made_of(**_TOKEN, top_logprobs=list_of(made_of(**_TOKEN)))
_FUNCTION: Final = made_of(name=TEXT, arguments=TEXT)
_CALL: Final = made_of(id=TEXT, type=is_always("function"), function=_FUNCTION)
_USAGE: Final = made_of(prompt_tokens=WHOLE, completion_tokens=WHOLE, total_tokens=WHOLE)
_HEAD: Final = {"id": TEXT, "created": WHOLE, "model": TEXT, "system_fingerprint": TEXT}

_CHAT_COMPLETION: Final = made_of(
    **_HEAD,
    object=is_always("chat.completion"),
    choices=list_of(
        made_of(
            index=WHOLE,
            message=made_of(
                {
                    "reasoning": TEXT,
                    "reasoning_content": TEXT,
                    "tool_calls": list_of(_CALL),
                    "function_call": _FUNCTION,
                },
                role=is_always("assistant"),
                content=or_null(TEXT),
                refusal={"type": "null"},
            ),
            logprobs=or_null(made_of(content=list_of(_LOGPROB), refusal={"type": "null"})),
            finish_reason=one_of("stop", "length", "tool_calls", "content_filter", "function_call"),
        )
    ),
    usage=_USAGE,
)
_COMPLETION: Final = made_of(
    **_HEAD,
    object=is_always("text_completion"),
    choices=list_of(
        made_of(
            index=WHOLE,
            text=TEXT,
            logprobs=or_null(
                made_of(
                    tokens=list_of(TEXT),
                    token_logprobs=list_of(NUMBER),
                    top_logprobs=or_null(list_of({"type": "object", "additionalProperties": NUMBER})),
                    text_offset=list_of(WHOLE),
                )
            ),
            finish_reason=one_of("stop", "length", "content_filter"),
        )
    ),
    usage=_USAGE,
)
_EMBEDDINGS: Final = made_of(
    object=is_always("list"),
    data=list_of(
        made_of(
            object=is_always("embedding"),
            index=WHOLE,
            # As base64: little-endian float32.
            embedding={"anyOf": [list_of(NUMBER), TEXT]},
        )
    ),
    model=TEXT,
    usage=made_of(prompt_tokens=WHOLE, total_tokens=WHOLE),
)
_MODEL: Final = made_of(id=TEXT, object=is_always("model"), created=WHOLE, owned_by=TEXT)
_ITEM_STATUS: Final = one_of("in_progress", "completed", "incomplete")
_ITEMS: Final = (
    made_of(
        {"encrypted_content": TEXT},
        id=TEXT,
        type=is_always("reasoning"),
        summary=list_of(made_of(type=is_always("summary_text"), text=TEXT)),
    ),
    made_of(
        id=TEXT,
        type=is_always("message"),
        role=is_always("assistant"),
        status=_ITEM_STATUS,
        content=list_of(
            made_of(
                type=is_always("output_text"),
                text=TEXT,
                annotations=list_of(ANY),
                logprobs=list_of(_LOGPROB),
            )
        ),
    ),
    made_of(
        id=TEXT,
        type=is_always("function_call"),
        status=_ITEM_STATUS,
        call_id=TEXT,
        name=TEXT,
        arguments=TEXT,
    ),
)
_RESPONSE: Final = made_of(
    id=TEXT,
    object=is_always("response"),
    created_at=WHOLE,
    completed_at=or_null(WHOLE),
    status=one_of("completed", "incomplete", "failed", "in_progress"),
    error=or_null(made_of(code=TEXT, message=TEXT)),
    incomplete_details=or_null(made_of(reason=TEXT)),
    model=TEXT,
    output=list_of({"anyOf": list(_ITEMS)}),
    usage=or_null(
        made_of(
            input_tokens=WHOLE,
            input_tokens_details=made_of(cached_tokens=WHOLE),
            output_tokens=WHOLE,
            output_tokens_details=made_of(reasoning_tokens=WHOLE),
            total_tokens=WHOLE,
        )
    ),
    instructions=or_null(TEXT),
    metadata=any_object(),
    parallel_tool_calls=FLAG,
    temperature=or_null(NUMBER),
    tool_choice=ANY,
    tools=list_of(ANY),
    top_p=or_null(NUMBER),
)
_STANDING: Final = made_of(
    scope=one_of("key", "tenant"),
    unit=one_of("requests", "tokens"),
    window=one_of("minute", "concurrent", "day", "month", "total"),
    limit=or_null(WHOLE),
    used=WHOLE,
    reserved=WHOLE,
    remaining=or_null(WHOLE),
    resets_at=or_null(TEXT),
)
_CALLERS_USAGE: Final = made_of(
    object=is_always("usage"),
    key=TEXT,
    tenant=TEXT,
    as_of=TEXT,
    prompts_kept_for_s=or_null(WHOLE),
    limits=list_of(_STANDING),
    budgets=list_of(_STANDING),
    recent_refusals=list_of(made_of(at=TEXT, request_id=TEXT, status=WHOLE, code=TEXT, model=or_null(TEXT))),
)

# ── Anthropic's ──────────────────────────────────────────────────────────────────────────

_MESSAGE: Final = made_of(
    id=TEXT,
    type=is_always("message"),
    role=is_always("assistant"),
    model=TEXT,
    content=list_of(
        {
            "anyOf": [
                made_of(type=is_always("text"), text=TEXT),
                made_of(type=is_always("thinking"), thinking=TEXT, signature=TEXT),
                made_of(type=is_always("tool_use"), id=TEXT, name=TEXT, input=any_object()),
            ]
        }
    ),
    stop_reason=one_of("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"),
    stop_sequence=or_null(TEXT),
    usage=made_of(input_tokens=WHOLE, output_tokens=WHOLE),
)

# ── Ollama's ─────────────────────────────────────────────────────────────────────────────

_NATIVE_CALL: Final = made_of(
    {"id": TEXT}, function=made_of({"index": WHOLE}, name=TEXT, arguments=any_object())
)
_DURATIONS: Final = dict.fromkeys(
    ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"),
    WHOLE | {"description": "nanoseconds"},
)
_ENDING: Final = {
    **_DURATIONS,
    "prompt_eval_count": WHOLE,
    "eval_count": WHOLE,
    "logprobs": list_of(made_of({"top_logprobs": list_of(made_of(**_TOKEN))}, **_TOKEN)),
}
_NATIVE_HEAD: Final = {
    "model": TEXT,
    "created_at": TEXT,
    "done": FLAG,
    "done_reason": one_of("stop", "length", "load", "unload"),
}
_NATIVE_CHAT: Final = made_of(
    _ENDING,
    **_NATIVE_HEAD,
    message=made_of(
        {"thinking": TEXT, "tool_calls": list_of(_NATIVE_CALL)}, role=is_always("assistant"), content=TEXT
    ),
)
_NATIVE_GENERATE: Final = made_of(
    _ENDING | {"thinking": TEXT, "context": list_of({"type": "integer"})}, **_NATIVE_HEAD, response=TEXT
)
_NATIVE_EMBED: Final = made_of(
    {"total_duration": WHOLE, "load_duration": WHOLE, "prompt_eval_count": WHOLE},
    model=TEXT,
    embeddings=list_of(list_of(NUMBER)),
)
_DETAILS: Final = made_of(
    **dict.fromkeys(("parent_model", "format", "family", "parameter_size", "quantization_level"), TEXT),
    families=list_of(TEXT),
)
_NAMED: Final = {"name": TEXT, "model": TEXT, "digest": TEXT, "details": _DETAILS, "size": WHOLE}

# ── all ──────────────────────────────────────────────────────────────────────────────────

# By operation: the name of a whole answer's schema, and the schema.
ANSWERS: Final[dict[Operation, tuple[str, JsonObject]]] = {
    Operation.CHAT_COMPLETIONS: ("ChatCompletion", _CHAT_COMPLETION),
    Operation.COMPLETIONS: ("Completion", _COMPLETION),
    Operation.EMBEDDINGS: ("EmbeddingList", _EMBEDDINGS),
    Operation.RESPONSES: ("Response", _RESPONSE),
    Operation.MODELS: ("ModelList", made_of(object=is_always("list"), data=list_of(_MODEL))),
    Operation.MODEL: ("Model", _MODEL),
    Operation.USAGE: ("Usage", _CALLERS_USAGE),
    Operation.MESSAGES: ("Message", _MESSAGE),
    Operation.COUNT_TOKENS: ("TokenCount", made_of(input_tokens=WHOLE)),
    Operation.CHAT: ("OllamaChat", _NATIVE_CHAT),
    Operation.GENERATE: ("OllamaGenerate", _NATIVE_GENERATE),
    Operation.EMBED: ("OllamaEmbed", _NATIVE_EMBED),
    Operation.LEGACY_EMBEDDINGS: ("OllamaEmbedding", made_of(embedding=list_of(NUMBER))),
    Operation.SHOW: (
        "OllamaShow",
        made_of(
            {"parameters": TEXT},
            details=_DETAILS,
            model_info=any_object(),
            capabilities=list_of(TEXT),
            modified_at=TEXT,
        ),
    ),
    Operation.TAGS: (
        "OllamaTags",
        made_of(models=list_of(made_of({"capabilities": list_of(TEXT)}, **_NAMED, modified_at=TEXT))),
    ),
    Operation.PS: (
        "OllamaPs",
        made_of(models=list_of(made_of(**_NAMED, expires_at=TEXT, size_vram=WHOLE, context_length=WHOLE))),
    ),
    Operation.VERSION: ("OllamaVersion", made_of(version=TEXT)),
    Operation.HEALTH: ("Health", made_of(status=is_always("ok"))),
    Operation.READINESS: (
        "Readiness",
        made_of({"backends": any_object()}, status=is_always("ok")),
    ),
    Operation.OPENAPI: ("OpenApi", made_of(openapi=TEXT, info=any_object(), paths=any_object())),
}
TEXTS: Final[dict[Operation, str]] = {Operation.ROOT: "text/plain", Operation.DOCS: "text/html"}

# How an answer is streamed, where it is.
STREAMS: Final[dict[Surface, tuple[str, str]]] = {
    Surface.OLLAMA: (
        "application/x-ndjson",
        "One JSON object a line, each with a piece; the last says done. A stream that broke ends with a line"
        " that has an error.",
    ),
    Surface.OPENAI: (
        "text/event-stream",
        "Server-sent events with OpenAI's chunks, and [DONE] in the end; of /v1/responses its named events."
        " A stream that broke ends with an error instead. Comments keep a silent stream open.",
    ),
    Surface.ANTHROPIC: (
        "text/event-stream",
        "Anthropic's named events, message_stop in the end. A stream that broke ends with the event error.",
    ),
}

ERRORS: Final[dict[Surface, tuple[str, JsonObject]]] = {
    Surface.OLLAMA: ("OllamaError", made_of(error=TEXT)),
    Surface.OPENAI: (
        "OpenaiError",
        made_of(error=made_of(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT))),
    ),
    Surface.ANTHROPIC: (
        "AnthropicError",
        made_of(type=is_always("error"), error=made_of(type=TEXT, message=TEXT), request_id=TEXT),
    ),
}

_SECONDS: Final = "Seconds to wait before another try."
HEADERS: Final[dict[str, Any]] = {
    "x-request-id": "The request's id, by which its operator finds it.",
    "x-gateway-dropped-options": "Fields that were read and not honoured as asked, separated by commas.",
    "x-gateway-truncated": "The field of which the model has not seen all, because it was too long.",
    "x-gateway-estimated": "The field of the answer that is an estimate.",
    "x-queue-position": "Where the request stood in the queue when it came, 1 is next; if it had to wait.",
    "x-queue-wait-ms": "How long it waited there, in milliseconds.",
    "retry-after": _SECONDS,
    "x-should-retry": "false: the same request will not pass before a budget turns.",
    "x-ratelimit-remaining-requests": "What is left of the requests per minute; also limit and reset.",
    "x-ratelimit-remaining-tokens": "What is left of the tokens per minute; also limit and reset.",
    "x-budget-remaining-day": "What is left of the day's tokens; also month and total, limit and reset.",
}
