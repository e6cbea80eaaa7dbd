"""Real llama.cpp engines for the tests: one process per model and test session.

`engine_greeting` recites one sentence, calls `get_weather` when tools are offered, and answers in words after
a tool's result. `engine_endless` never stops. `engine_embed` makes vectors.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo import engine, scripts
from gateway.demo.engine import Engine
from gateway.demo.scripts import Script

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's models and engine logs are; the name holds a space, as a user's path may."""
    return tmp_path_factory.mktemp("demo models")


@pytest.fixture(scope="session")
def engine_greeting(models_dir: Path) -> Iterator[Engine]:
    yield from _running(scripts.GREETING, models_dir)


@pytest.fixture(scope="session")
def engine_endless(models_dir: Path) -> Iterator[Engine]:
    yield from _running(scripts.ENDLESS, models_dir)


@pytest.fixture(scope="session")
def engine_embed(models_dir: Path) -> Iterator[Engine]:
    yield from _running(scripts.EMBED, models_dir)


def _running(script: Script, directory: Path) -> Iterator[Engine]:
    with engine.scripted(script, directory, directory / f"{script.name}.log") as running:
        yield running


def connect(running: Engine) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10.0)


def ask(running: Engine, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and body of one request: a POST of `body` (bytes, or anything as JSON), or a GET."""
    connection = connect(running)
    try:
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(
            "GET" if body is None else "POST", path, payload, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask_json(running: Engine, path: str, body: Any = None) -> Any:
    """The body of an answer that has to be 200 and JSON."""
    status, raw = ask(running, path, body)
    assert status == http.client.OK, raw
    return json.loads(raw)


def busy_slots(running: Engine) -> int:
    """How many answers the engine is writing at this moment."""
    return sum(slot["is_processing"] for slot in ask_json(running, "/slots"))


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether `condition` becomes true in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False
