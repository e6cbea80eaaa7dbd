"""What the scripts of the Python clients share: what they are told, and how they tell what they saw.

A script is a process of its own, which any Python runs: this imports nothing but the standard library. It is
told of the stage in one line on its standard input, tells each scenario in one line on its standard output,
and goes on when it is answered a line.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Models:
    """The models of one backend."""

    chat: str
    endless: str
    embedding: str


Scenario = Callable[[Models], Report]


@dataclass(frozen=True)
class Stage:
    url: str
    key: str
    limited_key: str
    """May send one request per minute."""
    backends: dict[str, Models]
    question: str
    tool: dict[str, Any]
    """As OpenAI writes it."""
    texts: list[str]
    """To embed."""

    @property
    def messages(self) -> Any:
        return [{"role": "user", "content": self.question}]


def read_stage() -> Stage:
    told = json.loads(sys.stdin.readline())
    backends = {name: Models(**models) for name, models in told.pop("backends").items()}
    return Stage(**told, backends=backends)


def perform(stage: Stage, *scenarios: Scenario) -> None:
    """Each scenario with each backend. One that fails does not keep the others from being tried."""
    tell = sys.stdout
    sys.stdout = sys.stderr  # for what a client prints by itself
    for backend, models in stage.backends.items():
        for scenario in scenarios:
            try:
                report = scenario(models)
            except Exception:  # noqa: BLE001 - whatever it is, the test tells it
                report = {"failed": traceback.format_exc()}
            told = {"backend": backend, "scenario": scenario.__name__, "report": report}
            print(json.dumps(told), file=tell, flush=True)
            sys.stdin.readline()


def refusal(ask: Callable[[], object]) -> Report:
    """How the client puts it when it is refused: asked up to three times, for what only a limit refuses."""
    for _ in range(3):
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - which one it is, is what the test asserts
            return refused_by(error)
    return {"raised": None}


def refused_by(error: Exception) -> Report:
    return {
        "raised": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "says": str(error),
    }


def pieces_of(pieces: list[str]) -> Report:
    """A text that came streamed."""
    return {"text": "".join(pieces), "in_pieces": len([piece for piece in pieces if piece]) > 10}
