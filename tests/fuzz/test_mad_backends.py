"""Whatever a backend answers is relayed, or is its failure: never a defect of ours (security.md G)."""

import json
from contextlib import suppress
from typing import Any

import pytest

from gateway.errors import BackendFailed, GatewayError
from gateway.formats.chat import (
    AnswerStamp,
    Call,
    ChatCall,
    CompletionCall,
    EmbedCall,
    Event,
    Failure,
    GenerateCall,
)
from gateway.formats.ollama.loaded import read_ps, write_ps
from gateway.formats.ollama.models import read_tags, write_tags
from gateway.formats.ollama.shown import read_shown, write_shown
from gateway.formats.openai.models import read_loaded, read_models, write_model, write_models
from gateway.formats.parts import parts_of
from gateway.formats.responses.requests import ResponseCall
from gateway.formats.translation import SURFACES, SurfaceFormat, Upstream, upstream_of
from gateway.model import ModelCard, Operation
from tests.fuzz.seeds import as_json, examples, mutated

STAMP = AnswerStamp("req_1", "m", 1_795_421_763.5, lambda: 1_795_421_764.5)
CHAT = ChatCall("m", (), stream=True, top_logprobs=2, include_usage=True)
CALLS: dict[Operation, Call] = {
    Operation.CHAT: CHAT,
    Operation.CHAT_COMPLETIONS: CHAT,
    Operation.MESSAGES: CHAT,
    Operation.RESPONSES: ResponseCall("m", (), stream=True, top_logprobs=2),
    Operation.GENERATE: GenerateCall("m", "x", stream=True, top_logprobs=2),
    Operation.COMPLETIONS: CompletionCall("m", ("x",), stream=True, top_logprobs=2, include_usage=True),
    Operation.EMBED: EmbedCall("m", ("x", "y"), dimensions=2),
    Operation.LEGACY_EMBEDDINGS: EmbedCall("m", ("x", "y")),
    Operation.EMBEDDINGS: EmbedCall("m", ("x", "y"), base64=True),
}
LOGPROBS = [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": [{"token": "y", "logprob": -1}]}]
TOOL_CALL = {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"city": ["Bern"]}}}
NATIVE = {
    "model": "m",
    "message": {"role": "assistant", "content": "x", "thinking": "y", "tool_calls": [TOOL_CALL, TOOL_CALL]},
    "response": "x",
    "embeddings": [[0.5, -0.5, 1e-8], [0.1, 0.2, 0.3]],
    "logprobs": LOGPROBS,
    "done": True,
    "done_reason": "stop",
    "context": [1, 2],
    "total_duration": 5,
    "load_duration": 1,
    "prompt_eval_count": 2,
    "prompt_eval_duration": 1,
    "eval_count": 3,
    "eval_duration": 1,
}
CHUNK = {
    "choices": [
        {
            "index": 0,
            "delta": {
                "content": "x",
                "reasoning": "y",
                "tool_calls": [
                    {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"city": "Bern"}'}},
                    {"index": 1, "id": "c2", "function": {"name": "g", "arguments": {"city": "Bern"}}},
                ],
            },
            "text": "x",
            "logprobs": {"content": LOGPROBS, "tokens": ["x"], "top_logprobs": [{"y": -1}]},
            "finish_reason": "stop",
        }
    ],
    "data": [{"index": 0, "embedding": [0.5, -0.5]}, {"index": 1, "embedding": "AAAAPwAAAL8="}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    "timings": {"prompt_ms": 1.5, "predicted_ms": 2},
}
ERRORS = [
    {"error": "x"},
    {"error": {"message": "x", "code": 400, "type": "y", "n_prompt_tokens": 1, "n_ctx": 2}},
    {"error": '{"error":{"message":"x"}}'},
    {"detail": "x"},
]
TAGS: dict[str, Any] = {
    "models": [
        {
            "name": "tiny:latest",
            "model": "tiny:latest",
            "modified_at": "2026-01-12T14:13:43Z",
            "size": 5,
            "digest": "ab" * 32,
            "details": {"family": "llama", "families": ["llama"], "parameter_size": "1B"},
        }
    ]
}
MODELS = {
    "data": [{"id": "tiny", "created": 1, "owned_by": "me", "meta": {"size": 5}}],
    "models": [{"model": "tiny", "details": {"families": ["llama"]}}],
}
LOADED = {"expires_at": "2026-01-12T14:13:43Z", "size_vram": 5, "context_length": 4096}
SHOWN = {
    "model_info": {"general.architecture": "llama", "llama.context_length": 4096, "x": [1]},
    "parameters": "stop x",
    "system": "s",
    "messages": [{"role": "user", "content": "x"}],
    "capabilities": ["tools"],
}
DATES = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "9999-12-31T23:59:59Z", "x"]


def relayed(surface: SurfaceFormat, call: Call, events: list[Event]) -> list[Any]:
    """What the caller gets, streamed and whole; each frame and each body must be JSON."""
    frames = surface.writer(STAMP, call).write(events).splitlines() if surface.writer else []
    silent = (b"", b"data: [DONE]")
    texts = [
        frame.removeprefix(b"data: ")
        for frame in frames
        if frame not in silent and not frame.startswith(b"event: ")
    ]
    texts.append(surface.write_whole(events, STAMP, call))
    return [json.loads(text) for text in texts]


def events_of(upstream: Upstream, data: bytes) -> list[Event]:
    if upstream.reader is None or upstream.read_whole is not None:
        assert upstream.read_whole is not None
        return upstream.read_whole(data)
    reader = upstream.reader()
    events = reader.feed(data)
    # As the relay does: nothing is read behind a failure.
    return events if any(isinstance(event, Failure) for event in events) else events + reader.end()


@pytest.mark.parametrize("operation", CALLS, ids=lambda operation: operation.value)
@pytest.mark.parametrize(("kind", "sane"), [("ollama", NATIVE), ("openai", CHUNK)], ids=["ollama", "openai"])
def test_any_answer_is_relayed_or_is_a_failure(operation: Operation, kind: str, sane: dict[str, Any]):
    """Counts beyond all bounds, nesting without end, odd types: a 502 or an answer in valid JSON."""
    call = CALLS[operation]
    upstream = upstream_of(kind, parts_of(call)[0], "m")
    for number, random in enumerate(examples(1, 1_500)):
        data = as_json(mutated(random, random.choice([sane, sane, sane, *ERRORS])))
        is_sse = kind == "openai" and upstream.reader is not None
        sent = b"data: " + data + b"\n\n" if is_sse else data + b"\n"
        try:
            relayed(SURFACES[operation], call, events_of(upstream, sent))
        except GatewayError:
            continue
        except Exception as error:
            raise AssertionError(f"example {number}: {data[:2000]!r}") from error


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_any_error_of_a_backend_is_an_outcome(kind: str):
    """`read_error` never raises, whatever the status and the body."""
    upstream = upstream_of(kind, CHAT, "m")
    for random in examples(2, 1_500):
        data = as_json(mutated(random, random.choice(ERRORS)))
        error = upstream.read_error(random.choice([204, 307, 400, 404, 413, 500, 503, 999]), data)
        assert isinstance(error, GatewayError), data[:2000]


def test_any_model_that_is_loaded_or_described_can_be_told_or_is_a_failure():
    """What is asked in the background is as mad as what is asked for callers."""
    for random in examples(4, 3_000):
        loaded = mutated(random, TAGS | {"models": [TAGS["models"][0] | LOADED]})
        if random.random() < 0.2:
            loaded = {"models": [{"name": "a", "expires_at": random.choice(DATES)}]}
        with suppress(BackendFailed):
            found = [(ModelCard("m"), model) for model in read_ps(as_json(loaded))]
            json.loads(write_ps(found, 1_795_421_763.5))
        with suppress(BackendFailed):
            read_loaded(as_json(mutated(random, MODELS)))
        with suppress(BackendFailed):
            json.loads(write_shown(read_shown(as_json(mutated(random, SHOWN)), ModelCard("m"))))


def test_any_list_of_models_can_be_shown_or_is_a_failure():
    """One backend with a wrong clock or a mad list must not take /api/tags away from everybody."""
    for random in examples(3, 3_000):
        tags, models = mutated(random, TAGS), mutated(random, MODELS)
        if random.random() < 0.2:
            tags = {"models": [{"name": "a", "modified_at": random.choice(DATES)}]}
        for read, listed in ((read_tags, tags), (read_models, models)):
            try:
                cards = read(as_json(listed))
            except BackendFailed:
                continue
            for card in cards:
                json.loads(write_model(card, "m"))
            json.loads(write_tags(cards))
            json.loads(write_models(cards))
