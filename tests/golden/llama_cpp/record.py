"""Record the engine's raw HTTP bodies anew.

python -m tests.golden.llama_cpp.record
"""

import tempfile
from pathlib import Path
from typing import Any

from gateway.demo import engine, scripts
from gateway.demo.scripts import Script
from tests.engines import WEATHER_TOOL, ask

HERE = Path(__file__).parent
ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris, please?"}]}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

# file name: model, path, body (none: GET)
RECORDINGS: dict[str, tuple[Script, str, Any]] = {
    "chat": (scripts.GREETING, CHAT, ASKED),
    "chat_length": (scripts.GREETING, CHAT, {**ASKED, "max_tokens": 3}),
    "chat_n": (scripts.GREETING, CHAT, {**ASKED, "max_tokens": 3, "n": 2}),
    "chat_logprobs": (
        scripts.GREETING,
        CHAT,
        {**ASKED, "max_tokens": 2, "logprobs": True, "top_logprobs": 2},
    ),
    "chat_stream": (scripts.GREETING, CHAT, {**ASKED, "stream": True}),
    "chat_stream_usage": (scripts.GREETING, CHAT, {**ASKED, **STREAM}),
    "chat_stream_length": (scripts.GREETING, CHAT, {**ASKED, **STREAM, "max_tokens": 3}),
    "chat_stream_n": (scripts.GREETING, CHAT, {**ASKED, **STREAM, "max_tokens": 3, "n": 2}),
    "tool_call": (scripts.GREETING, CHAT, {**ASKED, "tools": [WEATHER_TOOL]}),
    "tool_call_stream": (scripts.GREETING, CHAT, {**ASKED, **STREAM, "tools": [WEATHER_TOOL]}),
    "completion": (scripts.GREETING, COMPLETIONS, {"prompt": "Hello there", "max_tokens": 5}),
    "completion_stream": (
        scripts.GREETING,
        COMPLETIONS,
        {"prompt": "Hello there", "max_tokens": 5, **STREAM},
    ),
    "embeddings": (scripts.EMBED, EMBEDDINGS, {"input": ["hello world", "good thanks"]}),
    "embeddings_base64": (scripts.EMBED, EMBEDDINGS, {"input": "hello world", "encoding_format": "base64"}),
    "models": (scripts.GREETING, "/v1/models", None),
    "input_tokens": (scripts.GREETING, f"{CHAT}/input_tokens", ASKED),
    "error_context": (scripts.GREETING, CHAT, {"messages": [{"role": "user", "content": "word " * 9000}]}),
    "error_json": (scripts.GREETING, CHAT, b'{"messages": [}'),
    "error_no_messages": (scripts.GREETING, CHAT, {}),
    "error_no_embeddings": (scripts.GREETING, EMBEDDINGS, {"input": "hello"}),
    "error_not_found": (scripts.GREETING, "/api/tags", None),
    "error_logprobs_tools": (
        scripts.GREETING,
        CHAT,
        {**ASKED, **STREAM, "logprobs": True, "tools": [WEATHER_TOOL]},
    ),
}


def record(script: Script) -> None:
    """Record all that one model says; each file is the body, byte by byte as it came."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with engine.scripted(script, place, place / "log") as running:
            for name, (speaker, path, body) in RECORDINGS.items():
                if speaker is script:
                    status, raw = ask(running, path, body)
                    (HERE / f"{name}.txt").write_bytes(raw)
                    print(f"{name}: {status}, {len(raw)} bytes")


if __name__ == "__main__":
    record(scripts.GREETING)
    record(scripts.EMBED)
