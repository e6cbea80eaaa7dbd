"""OpenAI's client and its Responses API against a running gateway, with a real llama.cpp engine behind it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from gateway.demo.scripts import GREETING
from tests.doubles import Double, answer, chat_frame, chat_stream
from tests.engines import WEATHER_TOOL, wait_until
from tests.gateways import Gateway

HELLO: Any = {"model": "greeting", "input": "Hello!"}
WEATHER: Any = {"type": "function", **WEATHER_TOOL["function"]}  # type: ignore[dict-item]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as official:
        yield official


def test_plain_and_streamed_responses_agree(gateway: Gateway, client: Any):
    """With each other, and with what the same engine is asked by the other surface."""
    plain = client.responses.create(**HELLO)
    with client.responses.stream(**HELLO) as events:
        names = [event.type for event in events]
        streamed = events.get_final_response()
    chat = client.chat.completions.create(model="greeting", messages=[{"role": "user", "content": "Hello!"}])

    assert plain.output_text == streamed.output_text == GREETING.answer
    assert (plain.status, streamed.status, plain.store) == ("completed", "completed", False)
    assert plain.usage.input_tokens == streamed.usage.input_tokens == chat.usage.prompt_tokens
    assert plain.usage.output_tokens == streamed.usage.output_tokens == chat.usage.completion_tokens
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names.count("response.output_text.delta") > 10
    assert names[-1] == "response.completed"


def test_the_output_is_cut_at_the_asked_length(client: Any):
    response = client.responses.create(**HELLO, max_output_tokens=5)

    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 5


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_call_goes_round(client: Any, is_stream: bool):
    """The model calls, we answer with the id that it gave, the model goes on in words."""
    asked = HELLO | {"tools": [WEATHER]}
    if is_stream:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(**asked)
    (call,) = [item for item in response.output if item.type == "function_call"]

    last = client.responses.create(
        **asked
        | {
            "input": [
                {"role": "user", "content": "Hello!"},
                *(item.model_dump(exclude={"parsed_arguments"}) for item in response.output),
                {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
            ]
        }
    )

    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert last.output_text == GREETING.tool_answer


def test_native_backends_answer_too(double: Double, client: Any):
    """What goes to Ollama: its own chat, with the instructions in front."""
    double.scripts["/api/chat"] = chat_stream(("Gr", "üße"))
    with client.responses.stream(model="double", input="Hi", instructions="Be brief.") as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        response = events.get_final_response()

    sent = double.inference[-1].json()
    assert text == response.output_text == "Grüße"
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


def test_structured_output_is_parsed_by_the_client(double: Double, client: Any):
    class Answer(BaseModel):
        x: int

    double.scripts["/api/chat"] = answer(200, chat_frame('{"x": 7}', done=True))
    response = client.responses.parse(model="double", input="Hi", text_format=Answer)

    assert response.output_parsed == Answer(x=7)
    assert double.inference[-1].json()["format"]["properties"]["x"]["type"] == "integer"


def test_what_needs_a_kept_conversation_is_a_clear_400(gateway: Gateway, client: Any):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**HELLO, previous_response_id="resp_1")
    with gateway.client() as plain:
        stored = plain.get("/v1/responses/resp_1")

    assert caught.value.param == "previous_response_id"
    assert "keeps none" in caught.value.message
    assert stored.status_code == 404


def test_a_budget_holds(gateway: Gateway):
    """Reserved before, settled to what was used, told in the headers."""
    gateway.json("create-tenant", "--name", "responders", "--total-tokens", "400")
    key = gateway.json("create-key", "--tenant", "responders", "--name", "only")["key"]
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as plain:
        answers = [plain.post("/v1/responses", json=HELLO) for _ in range(20)]

    served = [answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200]
    assert answers[0].headers["x-budget-remaining-total"] == str(400 - served[0])
    assert answers[-1].status_code == 429
    assert answers[-1].json()["error"]["code"] == "insufficient_quota"
    assert sum(served) <= 400

    def total_used() -> int:
        shown = gateway.json("show-tenant", "--name", "responders")
        return int(shown["usage"]["total_tokens"]["tenant"]["used"])

    assert wait_until(lambda: total_used() == sum(served), 5)


def test_the_audit_row_says_what_was_asked(gateway: Gateway, client: Any):
    answered = client.responses.with_raw_response.create(**HELLO)
    row = gateway.row_of(answered.headers["x-request-id"])

    assert (row["operation"], row["surface"], row["outcome"]) == ("responses", "openai", "served")
