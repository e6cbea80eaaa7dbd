"""gateway.formats.openai.parameters: sampling, structured output and thinking."""

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.formats.chat import Format, Sampling
from gateway.formats.fields import Fields
from gateway.formats.openai.parameters import (
    MAX_BIASES,
    read_format,
    read_sampling,
    read_thinking,
    read_top_logprobs,
    write_format,
    write_sampling,
    write_think,
)

SCHEMA = {"type": "object"}
ALL = Sampling(
    max_tokens=7,
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.1,
    typical_p=0.8,
    seed=42,
    stop=("a", "b"),
    presence_penalty=-2,
    frequency_penalty=2,
    repeat_penalty=1.1,
    repeat_last_n=64,
    num_keep=4,
    num_ctx=4096,
    logit_bias=((5, -100), (17, 0.5)),
)


@pytest.mark.parametrize(
    ("wire", "sampling"),
    [
        pytest.param({}, Sampling(), id="absent: the model's defaults"),
        pytest.param({"temperature": None, "stop": None}, Sampling(), id="null is absent"),
        pytest.param({"max_tokens": 5}, Sampling(max_tokens=5), id="max_tokens"),
        pytest.param(
            {"max_tokens": 9, "max_completion_tokens": 5},
            Sampling(max_tokens=5),
            id="max_completion_tokens first",
        ),
        pytest.param({"stop": "x"}, Sampling(stop=("x",)), id="stop as a string"),
        pytest.param({"stop": ["a", "", "b"]}, Sampling(stop=("a", "b")), id="empty stops end nothing"),
        pytest.param({"seed": 2**63 - 1}, Sampling(seed=2**63 - 1), id="a seed of 64 bits"),
        pytest.param(
            {"repetition_penalty": 1.1}, Sampling(repeat_penalty=1.1), id="vLLM's name of the penalty"
        ),
        pytest.param(
            {"max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1}
            | {
                "typical_p": 0.8,
                "seed": 42,
                "stop": ["a", "b"],
                "presence_penalty": -2,
                "frequency_penalty": 2,
            }
            | {"repeat_penalty": 1.1, "repeat_last_n": 64, "num_keep": 4, "num_ctx": 4096}
            | {"logit_bias": {"5": -100, "17": 0.5, "18": None}},
            ALL,
            id="everything",
        ),
    ],
)
def test_sampling_is_read(wire: dict[str, Any], sampling: Sampling) -> None:
    """OpenAI's fields, and those of local servers by their own names."""
    assert read_sampling(Fields(wire)) == sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", "100"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_completion_tokens", 2**60),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 1.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [1]),
        ("stop", 1),
        ("top_k", -2),
        ("min_p", 2),
        ("num_ctx", 0),
        ("logit_bias", [1]),
        ("logit_bias", {"Hello": 1}),
        ("logit_bias", {"05": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {str(token): 1 for token in range(MAX_BIASES + 1)}),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, value: Any) -> None:
    """A backend would clamp it, ignore it, or fail: each differently."""
    with pytest.raises(InvalidRequest) as refused:
        read_sampling(Fields({name: value}))

    assert refused.value.param == name


@pytest.mark.parametrize("bias", [101, -100.5, "1", True])
def test_a_bias_has_bounds(bias: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_sampling(Fields({"logit_bias": {"5": bias}}))

    assert refused.value.param == "logit_bias.5"


def test_sampling_is_written_by_the_names_of_both_servers() -> None:
    """vLLM says repetition_penalty, llama.cpp repeat_penalty; each ignores what it does not know."""
    assert write_sampling(ALL) == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "typical_p": 0.8,
        "seed": 42,
        "stop": ["a", "b"],
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
        "repeat_last_n": 64,
        "n_keep": 4,
        "logit_bias": {"5": -100, "17": 0.5},
    }


@pytest.mark.parametrize(
    ("max_tokens", "written"), [(None, {}), (-1, {}), (0, {"max_tokens": 1}), (1, {"max_tokens": 1})]
)
def test_the_bound_of_the_output_is_written(max_tokens: int | None, written: dict[str, Any]) -> None:
    """vLLM refuses 0; Ollama gives one token for it."""
    assert write_sampling(Sampling(max_tokens=max_tokens)) == written


@pytest.mark.parametrize(
    ("wire", "top_logprobs"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_logprobs_are_read(wire: dict[str, Any], top_logprobs: int | None) -> None:
    """None: not asked for."""
    assert read_top_logprobs(Fields(wire)) == top_logprobs


@pytest.mark.parametrize(
    "wire", [{"top_logprobs": 1}, {"logprobs": True, "top_logprobs": 21}, {"logprobs": 1}]
)
def test_logprobs_that_cannot_be_are_refused(wire: dict[str, Any]) -> None:
    """`top_logprobs` needs `logprobs`, and goes to 20."""
    with pytest.raises(InvalidRequest):
        read_top_logprobs(Fields(wire))


@pytest.mark.parametrize(
    ("wire", "format"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param({"type": "text"}, None, id="text"),
        pytest.param({"type": "json_object"}, Format(), id="any object"),
        pytest.param(
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            Format(SCHEMA, "x", strict=True),
            id="a schema",
        ),
        pytest.param(
            {"type": "json_schema", "schema": SCHEMA}, Format(SCHEMA), id="a schema in llama.cpp's shape"
        ),
        pytest.param({"type": "json_object", "schema": SCHEMA}, Format(SCHEMA), id="an object with a schema"),
    ],
)
def test_formats_are_read(wire: Any, format: Format | None) -> None:
    """Structured output, in the shapes of OpenAI, vLLM and llama.cpp."""
    assert read_format(Fields({"response_format": wire})) == format


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.schema"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": "x"}}, "response_format.json_schema.schema"),
    ],
)
def test_formats_that_say_nothing_are_refused(wire: Any, param: str) -> None:
    """Who asks for structure must not get prose."""
    with pytest.raises(InvalidRequest) as refused:
        read_format(Fields({"response_format": wire}))

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("format", "written"),
    [
        pytest.param(None, {}, id="none"),
        pytest.param(Format(), {"response_format": {"type": "json_object"}}, id="any object"),
        pytest.param(
            Format(SCHEMA),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "schema", "schema": SCHEMA}}},
            id="Ollama's have no name",
        ),
        pytest.param(
            Format(SCHEMA, "x", strict=False),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": False},
                }
            },
            id="name and strictness",
        ),
    ],
)
def test_formats_are_written(format: Format | None, written: dict[str, Any]) -> None:
    """A name is required by OpenAI's shape."""
    assert write_format(format) == written


@pytest.mark.parametrize(
    ("wire", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "high"),
        ({"reasoning_effort": "low", "reasoning": {"summary": "auto"}}, "low"),
        ({"reasoning_effort": "low", "think": True}, True),
        ({"think": False}, False),
        ({"think": "max"}, "max"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"}, "high"),
        ({"chat_template_kwargs": {"system": "x"}}, None),
    ],
)
def test_thinking_is_read(wire: dict[str, Any], think: bool | str | None) -> None:
    """`think`, then `reasoning.effort`, then `reasoning_effort`, then the switch of the templates."""
    assert read_thinking(Fields(wire)) == think


@pytest.mark.parametrize(
    "wire", [{"think": "yes"}, {"think": 1}, {"reasoning_effort": "huge"}, {"reasoning": {"effort": 1}}]
)
def test_unknown_efforts_are_refused(wire: dict[str, Any]) -> None:
    """The error lists what can be asked for."""
    with pytest.raises(InvalidRequest, match=r"low, medium, high|a string"):
        read_thinking(Fields(wire))


@pytest.mark.parametrize(
    ("think", "written"),
    [
        (None, {}),
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "none"}),
        ("high", {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"}),
    ],
)
def test_thinking_is_written(think: bool | str | None, written: dict[str, Any]) -> None:
    """Some models go by the effort, some by their template's switch."""
    assert write_think(think) == written
