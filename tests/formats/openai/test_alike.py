"""gateway.formats.openai.alike: chunks that differ in their text alone."""

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.formats.chat import Delta, Event
from gateway.formats.openai.alike import _MAX_UNLIKE, Alike, Kind
from gateway.formats.openai.reading import ChatReader, CompletionReader
from gateway.formats.sse import frame
from gateway.model import JsonObject


def chunk(text: str, **more: object) -> JsonObject:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "chatcmpl-1", "choices": [choice], "model": "m"} | more


def plain_text(chunk: JsonObject) -> str:
    text: str = chunk["choices"][0]["delta"].get("content", "")
    return text


def taught(*texts: str) -> Alike:
    alike = Alike()
    for text in texts:
        alike.learn(orjson.dumps(chunk(text)), chunk(text), [Kind(plain_text, Delta)])
    return alike


@pytest.mark.parametrize("text", ["b", "é", '"', '","', "chatcmpl-1"])
def test_the_text_of_a_chunk_like_the_second_one_is_known(text: str) -> None:
    """The first one is not kept: it often says more than those that follow."""
    assert taught("a", "b").delta_in(orjson.dumps(chunk(text))) == Delta(text)
    assert taught("a").delta_in(orjson.dumps(chunk(text))) is None


@pytest.mark.parametrize(
    "payload",
    [
        orjson.dumps(chunk("")),
        orjson.dumps(chunk("c", id="chatcmpl-2")),
        orjson.dumps(chunk("c", more=1)),
        orjson.dumps(chunk("c")).replace(b'"c"', b"7"),
        orjson.dumps(chunk("c")).replace(b'"c"', b"null"),
        orjson.dumps(chunk("c")).replace(b'"c"', b""),
        orjson.dumps(chunk("c")).replace(b'"c"', b'"c","role":"user"'),
        orjson.dumps(chunk("c")).replace(b'"c"', b'"c'),
        b"[DONE]",
        b"",
    ],
)
def test_of_any_other_chunk_nothing_is_known(payload: bytes) -> None:
    """It has to be read as a whole."""
    assert taught("a", "b").delta_in(payload) is None


def test_what_only_looks_like_the_text_is_not_taken_for_it() -> None:
    """The first place where these bytes stand is another string, or between two."""
    assert taught("a", "m", "chatcmpl-1", ",", ":").delta_in(orjson.dumps(chunk("c"))) == Delta("c")
    assert taught("a", "chatcmpl-1", ",", "content").delta_in(orjson.dumps(chunk("c"))) is None


def test_where_all_chunks_differ_nobody_looks_for_ever() -> None:
    """Each look costs more than reading the chunk."""
    looked = 0

    def look(chunk: JsonObject) -> str:
        nonlocal looked
        looked += 1
        return ""

    alike = Alike()
    for number in range(3 * _MAX_UNLIKE):
        alike.learn(orjson.dumps(chunk("a", id=str(number))), chunk("a"), [Kind(look, Delta)])

    assert looked == _MAX_UNLIKE - 1


TRICKY = st.sampled_from(["index", ",", ":", "m", "content", '"', "\\", '{"'])


@given(st.lists(st.text() | TRICKY, max_size=20))
@example([",", ",", ",", "a", "a", "b"])
def test_chunks_say_together_what_each_says_by_itself(texts: list[str]) -> None:
    """Whatever they bring, and however alike they are."""
    chunks = [frame(orjson.dumps(chunk(text, created=number // 7))) for number, text in enumerate(texts)]

    together: list[Event] = ChatReader().feed(b"".join(chunks))

    assert together == [event for one in chunks for event in ChatReader().feed(one)]
    assert together == [Delta(text) for text in texts if text]


def test_a_completion_is_read_alike() -> None:
    """Its text stands in the choice itself."""
    choice: JsonObject = {"index": 0, "finish_reason": None}
    chunks = [frame(orjson.dumps({"choices": [choice | {"text": text}]})) for text in "abc"]

    assert CompletionReader().feed(b"".join(chunks)) == [Delta("a"), Delta("b"), Delta("c")]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thinking_is_read_alike_and_what_is_said_after_it(name: str) -> None:
    """Models that think do so in most of their chunks; the other name, and the text, may be null."""

    def chunks(texts: str, name: str, other: str) -> list[bytes]:
        choice = {"index": 0, "finish_reason": None}
        return [
            frame(orjson.dumps({"choices": [choice | {"delta": {name: text, other: None}}]}))
            for text in texts
        ]

    reader = ChatReader()
    thought = reader.feed(b"".join(chunks("abc", name, "content")))
    said = reader.feed(b"".join(chunks("abc", "content", name)))

    assert thought == [Delta(thinking=text) for text in "abc"]
    assert said == [Delta(text) for text in "abc"]
    alike, usual = Alike(), ChatReader._kinds
    for text in ("a", "b"):
        (payload,) = chunks(text, name, "content")
        data = payload.removeprefix(b"data: ").strip()
        alike.learn(data, orjson.loads(data), usual)
    assert alike.delta_in(data.replace(b'"b"', b'"c"')) == Delta(thinking="c")


SAYS_X: JsonObject = {"index": 0, "text": "x", "delta": {"content": "x"}}


@pytest.mark.parametrize(
    "brought",
    [
        {"choices": [SAYS_X | {"text": "", "delta": {"content": "x", "tool_calls": [{"index": 0}]}}]},
        {"choices": [SAYS_X | {"text": "", "delta": {"content": "x", "reasoning": "why"}}]},
        {"choices": [SAYS_X | {"finish_reason": "stop"}]},
        {"choices": [SAYS_X | {"logprobs": {"content": []}}]},
        {"choices": [SAYS_X | {"index": 1}]},
        {"choices": [SAYS_X, SAYS_X]},
        {"choices": [SAYS_X], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        {"choices": [SAYS_X], "timings": {}},
        {"choices": [SAYS_X], "error": {"message": "no"}},
        {"choices": [SAYS_X], "object": "error"},
    ],
)
def test_from_a_chunk_that_brings_something_else_nothing_is_learned(brought: JsonObject) -> None:
    """What it brings would be lost of those that follow."""
    kinds = *ChatReader._kinds, *CompletionReader._kinds

    assert not any(kind.text_of(brought) for kind in kinds)
    assert ChatReader._kinds[0].text_of({"choices": [SAYS_X], "usage": None}) == "x"
